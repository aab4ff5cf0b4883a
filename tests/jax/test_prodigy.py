"""Prodigy on JAX: one estimate for all parameters, however these are grouped; optax's."""

import numpy as np
import pytest

from optimization import OptimizationConfig
from optimization.jax import estimated_step_sizes, functions, state_of
from tests.jax.common import OptimizerFactory, jax, optax, train
from tests.rules import prodigy_cases as cases

LIMIT = 2e-5  # roundings of float32, which the estimate passes on to all weights


def transformation(fields, params, **sections):
    rate = {"type": "constant", "constant": {"learning_rate": cases.RATE}}
    config = {"optimizer": {"type": "prodigy", "prodigy": fields}, "learning_rate": rate}
    factory = OptimizerFactory(OptimizationConfig({**config, **sections}))
    return factory.build_optimizer(params)


def error(found, expected):
    scale = max(np.abs(value).max() for value in expected.values())
    return max(np.abs(found[path] - expected[path]).max() for path in expected) / scale


@pytest.fixture(params=[True, False], ids=["small", "large"])
def of_a_size(request, monkeypatch):
    """Has all arrays be computed with as those of a size are."""
    monkeypatch.setattr(functions, "_SMALL", functions._SMALL if request.param else 1)


@pytest.mark.usefixtures("of_a_size")
@pytest.mark.parametrize("name", cases.CASES)
def test_it_is_the_paper(name):
    initial, gradients = cases.problem(dtype="float32")
    section = cases.section_of(name)
    expected = cases.expected(section, initial, gradients)
    found, _ = train(transformation(section.as_dict(), initial), initial, gradients)
    assert error(found, expected) < LIMIT


def test_groups_share_the_estimate():
    initial, gradients = cases.problem(dtype="float32")
    section = cases.section_of("decay")
    fields = {**section.as_dict(), "exclude_from_weight_decay": None}
    groups = [{"match": "bias", "weight_decay": 0.0}]
    tx = transformation(fields, initial, param_groups=groups)
    found, state = train(tx, initial, gradients)
    assert error(found, cases.expected(section, initial, gradients)) < LIMIT
    estimates = [shared["d"] for shared in state_of(state).shared.values()]
    assert len(estimates) == 2
    assert estimates[0] == estimates[1] > 0.01


def test_an_optimizer_of_its_own_has_no_part_in_it():
    initial, gradients = cases.problem(dtype="float32")
    groups = [
        {"match": "conv", "optimizer": {"type": "sgd_torch"}, "learning_rate_multiplier": 0.1}
    ]
    section = cases.section_of("usual")
    tx = transformation(section.as_dict(), initial, param_groups=groups)
    found, _ = train(tx, initial, gradients)
    others = {path: w for path, w in initial.items() if "conv" not in path}
    rest = [{path: g[path] for path in others} for g in gradients]
    assert error(found, cases.expected(section, others, rest)) < LIMIT


@pytest.mark.parametrize("safeguard", [False, True])
def test_it_is_that_of_optax(safeguard):
    initial, gradients = cases.problem(dtype="float32")
    fields = {"use_bias_correction": True, "safeguard_warmup": safeguard, "weight_decay": 0.1}
    section = cases.section_of("safeguard" if safeguard else "bias")
    # Optax has the next estimate beside epsilon, which is made to be no matter.
    more = {"d0": section.d0, "d_coef": section.d_coef, "epsilon": 1e-30}
    found, state = train(transformation({**fields, **more}, initial), initial, gradients)
    peer = optax.contrib.prodigy(
        cases.RATE,
        eps=1e-30,
        estim_lr0=section.d0,
        estim_lr_coef=section.d_coef,
        weight_decay=0.1,
        safeguard_warmup=safeguard,
    )
    expected, theirs = train(peer, initial, gradients)
    cases.assert_moved(jax.tree.map(np.asarray, expected), initial)
    assert error(found, expected) < LIMIT
    estimate = state_of(state).shared["default"]["d"]
    np.testing.assert_allclose(estimate, theirs.estim_lr, rtol=1e-4)


def test_the_estimate_of_each_optimizer_is_told():
    initial, gradients = cases.problem(dtype="float32")
    own = {"type": "prodigy", "prodigy": {"d0": 1e-3}}
    groups = [{"match": "conv", "name": "conv", "optimizer": own}]
    tx = transformation({}, initial, param_groups=groups)
    found = jax.jit(lambda state: estimated_step_sizes(state))(tx.init(initial))
    assert {name: f"{float(d):.0e}" for name, d in found.items()} == {
        "default": "1e-06",
        "conv": "1e-03",
    }
    _, state = train(transformation({}, initial), initial, gradients)
    assert float(estimated_step_sizes(state)["default"]) > 0.01


@pytest.mark.usefixtures("of_a_size")
@pytest.mark.parametrize("size", [1.0, 1e15, 1e30, np.inf])
def test_the_sum_has_its_bounds_where_they_act(size):
    params = {"w": jax.numpy.ones(3)}
    optimizer = transformation({}, params)
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    state = update({"w": jax.numpy.asarray([1.0, -1.0, 0.5])}, state, params)[1]
    (shared,) = state.shared.values()
    d, before = float(shared["d"]), float(state.slots["numerator"]["w"])
    moved = {"w": jax.numpy.asarray([0.5, 1.5, 1.0])}
    state = update({"w": jax.numpy.asarray([size, 1.0, 1.0])}, state, moved)[1]
    along = (min(size, 2.0**52) - 1.0) * 0.5
    expected = np.sqrt(0.999) * before + cases.RATE * d * d / 1e-6 * along
    assert float(state.slots["numerator"]["w"]) == pytest.approx(expected, rel=1e-5, abs=1e-12)
