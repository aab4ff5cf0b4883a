import keras
import numpy as np
import pytest

from optimization.optimizers import (
    Adafactor,
    ParamGroup,
    PipelineOptimizer,
    effective_learning_rates,
)
from optimization.rules.adafactor import AdafactorConfig
from tests.golden_cases import make_variable, make_variables
from tests.keras.common import TableSchedule, problem

SHAPES = {"a/kernel": (5, 6), "a/bias": (6,), "b/kernel": (6, 4)}


def hf(**values):
    return Adafactor(**AdafactorConfig(variant="hf", **values).arguments())


def alphas(weights, rho, floor=1e-3):
    return {path: rho * max(np.sqrt(np.mean(w**2)), floor) for path, w in weights.items()}


def test_they_are_relative_to_the_weights():
    initial, _ = problem(SHAPES)
    initial["a/bias"] *= 0
    optimizer = hf(epsilon2=0.5)
    optimizer.build(make_variables(initial))
    rates = effective_learning_rates(optimizer)
    assert rates == pytest.approx(alphas(initial, 1e-2, 0.5), rel=1e-6)
    assert rates["a/bias"] == pytest.approx(5e-3)


def test_they_are_what_the_next_update_takes():
    initial, gradients = problem(SHAPES, steps=3)
    optimizer = PipelineOptimizer(hf(clipping_threshold=None, decay_rate=1.0, warmup_init=True))
    variables = make_variables(initial)

    def apply(step):
        optimizer.apply([keras.ops.convert_to_tensor(step[v.path]) for v in variables], variables)
        return {v.path: keras.ops.convert_to_numpy(v) for v in variables}

    before = apply(gradients[0])
    rates = effective_learning_rates(optimizer)
    assert rates == pytest.approx(alphas(before, 2e-6), rel=1e-6)
    # A vector's second moment is v = (g1^2 + g2^2) / 2.
    v = (gradients[0]["a/bias"] ** 2 + gradients[1]["a/bias"] ** 2) / 2
    step = before["a/bias"] - apply(gradients[1])["a/bias"]
    # Steps of 1e-6 on weights of 1 keep one digit: 2^-24 is 6e-8.
    expected = rates["a/bias"] * gradients[1]["a/bias"] / np.sqrt(v)
    np.testing.assert_allclose(step, expected, atol=1e-7)


def test_multipliers_schedules_and_other_optimizers_count():
    initial, _ = problem(SHAPES)
    groups = [
        ParamGroup(match="a/kernel", learning_rate_multiplier=0.5),
        ParamGroup(match="b/", optimizer=keras.optimizers.SGD(0.1)),
    ]
    optimizer = PipelineOptimizer(
        hf(), param_groups=groups, schedules={"epsilon2": TableSchedule([10.0])}
    )
    optimizer.build(make_variables(initial))
    expected = {"a/kernel": 0.5 * 1e-2 * 10, "a/bias": 1e-2 * 10}
    assert effective_learning_rates(optimizer) == pytest.approx(expected, rel=1e-6)


def test_of_low_precision_weights():
    initial, _ = problem(SHAPES)
    optimizer = PipelineOptimizer(hf())
    optimizer.build([make_variable(path, w, dtype="bfloat16") for path, w in initial.items()])
    # The copies start from weights of 8 bits.
    assert effective_learning_rates(optimizer) == pytest.approx(alphas(initial, 1e-2), rel=2e-3)


def test_capped_and_with_the_decay_first():
    initial, _ = problem(SHAPES)
    section = AdafactorConfig(variant="keras", weight_decay=0.2)
    optimizer = Adafactor(3.0, **section.arguments())
    optimizer.build(make_variables(initial))
    optimizer.iterations.assign(3)
    expected = alphas({p: (1 - 3 * 0.2) * w for p, w in initial.items()}, 0.5)
    assert effective_learning_rates(optimizer) == pytest.approx(expected, rel=1e-6)


def test_without_an_adafactor_there_are_none():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="not built"):
        effective_learning_rates(optimizer)
    optimizer.build(make_variables(problem(SHAPES)[0]))
    assert effective_learning_rates(optimizer) == {}
