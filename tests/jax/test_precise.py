"""State in bfloat16 in JAX, beside float32 state that is rounded by hand."""

import numpy as np
import pytest

from tests.jax.common import assert_same, factory, gradients, jax, train, tree
from tests.rules.rounded_by_hand import rounded_by_hand

from optimization.jax.plan import path_of  # isort: skip

jnp = jax.numpy


def in_float32(state):
    widened = jax.tree.map(
        lambda x: x.astype("float32") if x.dtype == jnp.bfloat16 else x, state.slots
    )
    return state._replace(slots=widened)


@pytest.mark.parametrize("kind", ["adamw", "muon", "schedule_free_adamw"])
def test_state_is_that_of_float32_rounded(kind):
    params = tree(1)
    low = factory(kind, {"state": {"dtype": "bfloat16", "seed": 7}}).build_optimizer(params)
    exact = factory(kind).build_optimizer(params)
    state, seen = low.init(params), set()
    for step, grads in enumerate(gradients(3)):
        expected, wide = exact.update(grads, in_float32(state), params)
        updates, state = low.update(grads, state, params)
        assert_same(updates, expected)
        for name, slots in state.slots.items():
            leaves = jax.tree_util.tree_leaves_with_path(slots)
            others = jax.tree.leaves(wide.slots[name])
            for (keys, found), other in zip(leaves, others, strict=True):
                value = np.asarray(other, "float32")
                if found.dtype == jnp.bfloat16:
                    seen.add(name)
                    value = rounded_by_hand(value, 7, path_of(keys), name, step)
                np.testing.assert_array_equal(np.asarray(found, "float32"), value)
        params = jax.tree.map(lambda w, u: w + u, params, updates)
    assert seen == {"adamw": {"momentum", "velocity"}, "muon": {"momentum", "velocity"}}.get(
        kind, {"velocity"}
    )


@pytest.mark.parametrize("how", ["stochastic", "nearest"])
def test_weights_without_copies(how):
    """Steps of a hundredth of the distance to the next number add up, or are lost."""
    params = {"kernel": jnp.ones((50, 40), "bfloat16")}
    tx = factory("sgd", {"state": {"weights": how}}, rate=5e-5).build_optimizer(params)
    grads = {"kernel": jnp.ones((50, 40), "bfloat16")}
    found, state = train(tx, params, [grads] * 100)
    assert not jax.tree.leaves(state.masters)
    moved = 1 - float(found["kernel"].astype("float32").mean())
    assert moved == 0 if how == "nearest" else abs(moved - 0.005) < 5e-4  # 3 deviations
    again, _ = train(tx, params, [grads] * 40)
    assert_same(train(tx, params, [grads] * 40)[0], again)


def test_it_goes_on_as_if_it_had_not_stopped():
    params, steps = tree(2), gradients(6)
    state = {"dtype": "bfloat16", "weights": "stochastic"}
    tx = factory("adamw", {"state": state}).build_optimizer(params)
    straight = train(tx, params, steps)
    half, kept = train(tx, params, steps[:3])
    assert_same(train(tx, half, steps[3:], kept), straight)
