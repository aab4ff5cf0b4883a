"""Prodigy on Keras: one estimate for all variables, however these are grouped and updated."""

import keras
import numpy as np
import pytest

from optimization.keras.reported import estimates
from optimization.optimizers import (
    LearningRateLogger,
    ParamGroup,
    PipelineOptimizer,
    Prodigy,
    SGDTorch,
    estimated_step_sizes,
)
from tests.golden_cases import make_variables, run
from tests.keras.common import final_weights, relative_error, tensorflow_only
from tests.rules import prodigy_cases as cases

# Roundings of float32, which the estimate passes on to all weights.
LIMIT = 2e-5


def made(name):
    return Prodigy(cases.RATE, **cases.section_of(name).arguments())


@pytest.mark.parametrize("name", cases.CASES)
def test_it_is_the_paper(name):
    initial, gradients = cases.problem(dtype="float32")
    expected = cases.expected(cases.section_of(name), initial, gradients)
    cases.assert_moved(expected, initial)
    assert relative_error(final_weights(made(name), initial, gradients), expected) < LIMIT


def grouped(initial, gradients, jit_compile):
    """Returns weights whose decay a group says in the place of a list, and the optimizer."""
    arguments = {**cases.section_of("decay").arguments(), "exclude_from_weight_decay": None}
    optimizer = PipelineOptimizer(
        Prodigy(cases.RATE, **arguments),
        param_groups=[ParamGroup(match="bias", hyperparameters={"weight_decay": 0.0})],
        jit_compile=jit_compile,
    )
    variables = make_variables(initial)
    optimizer.build(variables)

    def step(grads):
        optimizer.apply(grads, variables)

    if jit_compile:
        import tensorflow as tf

        step = tf.function(step, autograph=False)
    for each in gradients:
        step([keras.ops.convert_to_tensor(each[v.path]) for v in variables])
    return {v.path: keras.ops.convert_to_numpy(v) for v in variables}, optimizer


@pytest.mark.parametrize("jit_compile", [False, pytest.param("auto", marks=tensorflow_only)])
def test_groups_share_the_estimate(jit_compile):
    initial, gradients = cases.problem(dtype="float32")
    weights, optimizer = grouped(initial, gradients, jit_compile)
    expected = cases.expected(cases.section_of("decay"), initial, gradients)
    assert relative_error(weights, expected) < LIMIT
    named = optimizer.variables_by_path()
    kept = [float(keras.ops.convert_to_numpy(v)) for n, v in named.items() if n.endswith("/d")]
    assert len(kept) == 2
    assert kept[0] == kept[1] > 0.01
    assert estimated_step_sizes(optimizer) == {"default": kept[0]}


def test_each_optimizer_tells_its_estimate_and_others_none():
    initial, gradients = cases.problem(dtype="float32")
    group = ParamGroup(match="conv", name="conv", optimizer=Prodigy(1.0, d0=1e-3))
    optimizer = PipelineOptimizer(made("usual"), param_groups=[group])
    assert estimated_step_sizes(optimizer) == estimated_step_sizes(made("usual")) == {}
    final_weights(optimizer, initial, gradients[:1])
    found = estimated_step_sizes(optimizer)
    assert [*found] == ["default", "conv"]
    assert found["conv"] >= 1e-3 > found["default"] > 0
    assert {*estimates(optimizer)} == {"estimated_step_size", "estimated_step_size/conv"}
    other = SGDTorch(0.1)
    other.build(make_variables(initial))
    assert estimates(other) == estimates(keras.optimizers.SGD(0.1)) == {}


def test_the_callback_logs_the_estimate():
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(PipelineOptimizer(Prodigy(1.0)), loss="mse", jit_compile=False)
    x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    callbacks = [LearningRateLogger()]
    history = model.fit(x, y, epochs=8, verbose=0, callbacks=callbacks).history
    found = history["estimated_step_size"]
    assert found == sorted(found)
    assert found[-1] == estimated_step_sizes(model.optimizer)["default"] > 1e-6


def test_an_optimizer_of_its_own_has_no_part_in_it():
    initial, gradients = cases.problem(dtype="float32")
    group = ParamGroup(match="conv", optimizer=SGDTorch(0.0))
    optimizer = PipelineOptimizer(made("usual"), param_groups=[group])
    found = final_weights(optimizer, initial, gradients)
    others = {path: w for path, w in initial.items() if "conv" not in path}
    rest = [{path: g[path] for path in others} for g in gradients]
    expected = cases.expected(cases.section_of("usual"), others, rest)
    assert relative_error({path: found[path] for path in others}, expected) < LIMIT


def test_it_measures_from_what_a_weight_is_at_its_first_gradient():
    initial, gradients = cases.problem(dtype="float32")
    optimizer, variables = made("usual"), make_variables({p: w + 5 for p, w in initial.items()})
    optimizer.build(variables)
    for variable in variables:
        variable.assign(initial[variable.path])
    *_, (_, found) = run(optimizer, variables, gradients)
    assert relative_error(found, final_weights(made("usual"), initial, gradients)) == 0


def test_without_gradients_nothing_moves():
    initial, gradients = cases.problem(dtype="float32")
    zeros = [{path: np.zeros_like(g) for path, g in gradients[0].items()}] * 2
    assert relative_error(final_weights(made("usual"), initial, zeros), initial) == 0
