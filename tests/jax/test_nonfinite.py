"""Gradients that are large, tiny, infinite or NaN, and late steps, with JAX."""

import math

import numpy as np
import pytest

from optimization import OptimizationConfig
from optimization.schedules.averages import AverageDecay
from tests import nonfinite_cases as cases
from tests.jax.common import OptimizerFactory, jax, optax

from optimization.jax.settings import Average  # isort: skip

jnp = jax.numpy


def tree(found):
    """Returns arrays as a tree, each by itself in a layer."""
    return {name: {"kernel": jnp.asarray(x)} for name, x in found.items()}


class Training:
    """A training of `cases.SHAPES`, compiled once."""

    def __init__(self, kind, **fields):
        factory = OptimizerFactory(OptimizationConfig(cases.config_of(kind, **fields)))
        self.params = tree(cases.arrays(1))
        self._optimizer = factory.build_optimizer(self.params)
        self._step = jax.jit(self._stepped)

    def _stepped(self, params, state, grads):
        updates, state = self._optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def run(self, gradients, start=0):
        """Returns the parameters after each update, and the state."""
        params, state = self.params, self._optimizer.init(self.params)
        state = state._replace(step=jnp.int32(start))
        found = []
        for grads in gradients:
            params, state = self._step(params, state, tree(grads))
            found.append(params)
        return found, state

    def watched(self, size):
        found, state = self.run(cases.gradients(size))
        named = jax.tree_util.tree_leaves_with_path(state.slots)
        named = {jax.tree_util.keystr(keys): np.asarray(x) for keys, x in named}
        return [np.asarray(params[cases.WATCHED]["kernel"]) for params in found], named


@pytest.mark.slow
@pytest.mark.parametrize("kind", cases.KINDS)
def test_the_outcome_of_each_size(kind):
    cases.check(kind, Training(kind).watched)


@pytest.mark.parametrize("kind", ["adam", "adafactor", "muon", "sgd"])
def test_skip_leaves_out_what_the_rule_cannot_hold(kind):
    training = Training(kind, on_nonfinite="skip")
    for size in (1e15, 1e38, math.inf, math.nan):
        found, state = training.run(cases.gradients(size))
        is_left_out = (size >= 1e38 and cases.is_limited(kind)) or not math.isfinite(size)
        assert int(state.nonfinite_steps) == is_left_out, size
        if is_left_out:
            before, after = (found[i][cases.WATCHED]["kernel"] for i in (-5, -4))
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "clip", [{"global_clipnorm": 1.0}, {"clipnorm": 1.0}, {"adaptive_clip_factor": 0.1}]
)
def test_what_is_clipped_can_be_held(clip):
    training = Training("adam", on_nonfinite="skip", **clip)
    found, state = training.run(cases.gradients(1e30))
    expected, _ = training.run(cases.gradients(1e4))
    assert int(state.nonfinite_steps) == 0
    # All entries are far above the bounds: the direction alone is left of them.
    for a, b in zip(found, expected, strict=True):
        x, y = a[cases.WATCHED]["kernel"], b[cases.WATCHED]["kernel"]
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_bound_of_a_clip_may_be_too_large():
    _, state = Training("adam", on_nonfinite="skip", clipvalue=1e30).run(cases.gradients(1e30))
    assert int(state.nonfinite_steps) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", cases.KINDS)
def test_late_steps(kind):
    """The count stays at 2**31 - 2, where it would become negative, and updates go on."""
    training, grads = Training(kind), [cases.arrays(100 + step) for step in range(4)]
    for start, end in ((10**9, 10**9 + 4), (2**31 - 4, 2**31 - 2)):
        found, state = training.run(grads, start)
        assert int(state.step) == end
        weights = [np.asarray(params[cases.WATCHED]["kernel"]) for params in found]
        assert np.isfinite(weights[-1]).all()
        assert (weights[-1] != weights[-2]).any()


def test_late_averages():
    """The dynamic decay has become the usual one, and the weights of the mean are some 2**24."""
    average = Average(AverageDecay(average_decay=0.9999))
    for count in (10**9, 2**31 - 2):
        assert average.share(jnp.int32(count)) == jnp.float32(1 - 0.9999)
    training = Training("schedule_free_sgd")
    state = training._optimizer.init(training.params)
    (label, shared), *_ = state.shared.items()
    late = {**shared, "largest_rate": jnp.float32(0.01), "sum_of_weights": jnp.float32(2**24)}
    state = state._replace(shared={label: late}, step=jnp.int32(10**9))
    _, state = training._step(training.params, state, tree(cases.arrays(2)))
    assert float(state.shared[label]["sum_of_weights"]) == 2**24


def test_an_empty_batch_has_gradients_of_0():
    """Its loss is NaN."""

    def loss(params, x):
        return jnp.mean(jnp.square(x @ params["middle"]["kernel"]))

    value, grads = jax.value_and_grad(loss)(tree(cases.arrays(1)), jnp.zeros((0, 16)))
    assert math.isnan(value)
    assert all(not x.any() for x in jax.tree.leaves(grads))
