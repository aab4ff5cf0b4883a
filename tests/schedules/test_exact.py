"""Boundaries, ends and restarts at steps that float32 does not have."""

import keras
import numpy as np
import pytest

from optimization.optimizers import PipelineOptimizer
from optimization.schedules import curve
from optimization.schedules.keras_schedules import build_schedule
from tests.golden_cases import make_variable
from tests.keras.stages.test_finite_check import compiled, eager
from tests.schedules.common import keras_values, lr_config, rate, warmup_config

pytestmark = pytest.mark.slow

LATE = [2**24 + 1, 33_554_433, 2**31 + 5]


def examples(b):
    """Returns pairs of a learning rate and a warmup in which something happens at step b."""
    wsd = {"initial_learning_rate": 1.0, "num_warmup_steps": 5, "num_decay_steps": 20}
    cases = {
        "stepwise": (lr_config("stepwise", boundaries=[3, b], values=[1.0, 0.5, 0.25]), None),
        "offset": (lr_config("exponential", decay_steps=3, offset=b), None),
        "end": (lr_config("linear", initial_learning_rate=1.0, decay_steps=b), None),
        "staircase": (lr_config("exponential", decay_steps=b, staircase=True), None),
        "cycle": (lr_config("polynomial", decay_steps=b, cycle=True), None),
        "restart": (lr_config("cosine_restarts", first_decay_steps=b), None),
        "equal restarts": (lr_config("cosine_restarts", first_decay_steps=b, t_mul=1.0), None),
        "phases": (
            lr_config("step_cosine_with_offset", boundaries=[0, b, b + 4], values=[3.0, 2.0, 1.0]),
            None,
        ),
        "stable": (lr_config("warmup_stable_decay", stable_steps=b, decay_steps=7), None),
        "one cycle": (lr_config("one_cycle", total_steps=2 * b, pct_start=0.5), None),
        "power": (lr_config("power_with_offset", offset=b, pre_offset_learning_rate=0.5), None),
        "hf restarts": (
            lr_config(
                "hf_cosine_with_restarts",
                initial_learning_rate=1.0,
                num_warmup_steps=0,
                num_training_steps=2 * b,
                num_cycles=2,
            ),
            None,
        ),
        "hf warmup": (
            lr_config("hf_constant_with_warmup", initial_learning_rate=1.0, num_warmup_steps=b),
            None,
        ),
        "hf decay": (
            lr_config(
                "hf_warmup_stable_decay", **wsd, num_stable_steps=b - 5, num_training_steps=None
            ),
            None,
        ),
    }
    for mode in ("replace", "delay"):
        warmup = warmup_config("constant", warmup_steps=b, warmup_learning_rate=0.5, mode=mode)
        after = lr_config("stepwise", boundaries=[1, b + 1], values=[1.0, 0.25, 0.125])
        cases[f"warmup, {mode}"] = (after, warmup)
    return cases


NAMES = list(examples(100))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("b", [*LATE, 2**53 - 10])
def test_a_curve_turns_late_as_it_does_early(name, b):
    config, warmup = examples(b)[name]
    around = rate(config, [b - 1, b, b + 1], warmup)
    # Late enough a step is too small a part of the whole.
    assert len(set(around)) > 1 or b > 2**31
    if name in ("stepwise", "offset", "stable", "phases", "warmup, replace", "warmup, delay"):
        early, warmup = examples(100)[name]
        np.testing.assert_allclose(around, rate(early, [99, 100, 101], warmup), rtol=1e-3)


@pytest.mark.parametrize("b", LATE)
@pytest.mark.parametrize("name", NAMES)
def test_the_keras_schedule_is_the_curve(name, b):
    config, warmup = examples(b)[name]
    steps = [b - 1, b, b + 1]
    actual = keras_values(build_schedule(config, warmup), steps)
    # Rounded once, to float32.
    np.testing.assert_allclose(actual, curve(config, warmup, steps), rtol=6e-8, atol=1e-12)


@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_an_optimizer_acts_at_the_step(mode, jit_compile):
    b = 33_554_433
    halved = build_schedule(lr_config("stepwise", boundaries=[b], values=[1.0, 0.5]))
    optimizer = PipelineOptimizer(
        keras.optimizers.SGD(halved, weight_decay=1.0),
        schedules={"weight_decay": halved},
        ema={"average_decay": 0.75, "start_step": b + 1, "dynamic_decay": False},
        jit_compile=jit_compile,
    )
    variable = make_variable("w", np.float32([1.0]))
    optimizer.build([variable])
    step = mode(optimizer, [variable])
    optimizer.iterations.assign(b - 1)
    # w <- w - lr * decay * w - lr * g; the average follows from b + 1 updates on.
    expected, average = 1.0, 1.0
    for done in (b - 1, b, b + 1):
        lr = 1.0 if done <= b else 0.5
        expected = expected - lr * lr * expected - lr * 1.0
        average += (expected - average) * (1.0 if done + 1 < b + 1 else 0.25)
        step([keras.ops.ones(1)])
        assert float(variable[0]) == pytest.approx(expected)
        found = optimizer.variables_by_path()["average/w"]
        assert float(found[0]) == pytest.approx(average)
    assert int(optimizer.iterations) == b + 2


def test_a_schedule_of_another_class_is_called_with_integers():
    b = 2**24 + 1

    class Own(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            # The curve, for the warmup's target, is of Python's integers.
            assert isinstance(step, int) or "int" in keras.backend.standardize_dtype(step.dtype)
            return keras.ops.where(keras.ops.greater(step, b), 0.25, 0.5)

        def get_config(self):
            return {}

    from optimization.schedules import WARMUP_CLS
    from optimization.schedules.keras_schedules import schedule_class

    warmup = schedule_class(WARMUP_CLS.config_class("constant"))
    schedule = warmup(Own(), warmup_steps=10, warmup_learning_rate=1.0)
    np.testing.assert_array_equal(keras_values(schedule, [9, b, b + 1]), [1.0, 0.5, 0.25])
