"""Parameters as flax and equinox have them, and checkpoints of Orbax."""

import numpy as np
import pytest

from tests.jax.common import STEPS, assert_same, factory, gradients, jax, optax, train, tree

jnp = jax.numpy
FIRST = [{"match": "layers?[/_]0/", "freeze": True}]


def moved(made, params):
    """Returns which parameters an update with gradients of 1 moves, by path."""
    tx = made.build_optimizer(params)
    after, state = train(tx, params, [jax.tree.map(jnp.ones_like, params)])
    averages = made.averaged_params(state, after)
    assert jax.tree.structure(averages) == jax.tree.structure(params)
    return {
        jax.tree_util.keystr(keys, simple=True, separator="/"): bool(jnp.any(new != old))
        for (keys, old), new in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(after), strict=True
        )
    }


def test_equinox():
    equinox = pytest.importorskip("equinox")
    model = equinox.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    made = factory("adamw", ema={}, param_groups=FIRST)
    found = moved(made, equinox.filter(model, equinox.is_inexact_array))
    assert found == {
        "layers/0/weight": False,
        "layers/0/bias": False,
        "layers/1/weight": True,
        "layers/1/bias": True,
    }
    # As a training loop of equinox has it, in which functions are part of the model.
    tx = factory("adamw").build_optimizer()
    state = tx.init(equinox.filter(model, equinox.is_inexact_array))

    @equinox.filter_jit
    def step(model, state):
        loss = lambda model: jnp.sum(model(jnp.ones(2)) ** 2)  # noqa: E731
        grads = equinox.filter_grad(loss)(model)
        weights = equinox.filter(model, equinox.is_inexact_array)
        updates, state = tx.update(grads, state, weights)
        return equinox.apply_updates(model, updates), state

    trained, state = step(model, state)
    assert int(state.step) == 1
    assert bool(jnp.any(trained.layers[0].weight != model.layers[0].weight))


@pytest.mark.parametrize("frozen", [False, True])
def test_flax_linen(frozen):
    flax = pytest.importorskip("flax")
    linen = pytest.importorskip("flax.linen")
    model = linen.Sequential([linen.Dense(3), linen.Dense(2)])
    params = model.init(jax.random.key(0), jnp.ones((1, 4)))
    params = flax.core.freeze(params) if frozen else params
    found = moved(factory("adamw", ema={}, param_groups=FIRST), params)
    assert found == {
        "params/layers_0/bias": False,
        "params/layers_0/kernel": False,
        "params/layers_1/bias": True,
        "params/layers_1/kernel": True,
    }


def _nnx_model(nnx):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
            self.norm = nnx.BatchNorm(3, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.norm(x)

    return Model(nnx.Rngs(0))


def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")
    params = nnx.state(_nnx_model(nnx), nnx.Param)
    # The `value` in which it keeps an array is no part of a path for patterns: `kernel$` matches.
    groups = [*FIRST, {"match": "kernel$|scale$", "freeze": True}]
    found = moved(factory("adamw", ema={}, param_groups=groups), params)
    assert [path for path, moves in found.items() if moves] == [
        path for path in found if path.startswith(("layers/1/bias", "norm/bias"))
    ]
    assert sum(found.values()) == 2


def test_the_optimizer_of_nnx():
    nnx = pytest.importorskip("flax.nnx")
    model = _nnx_model(nnx)
    before = jax.tree.map(np.array, nnx.pure(nnx.state(model, nnx.Param)))
    made = factory("adamw", ema={}, param_groups=FIRST)
    optimizer = nnx.Optimizer(model, made.build_optimizer(before), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        loss = lambda model: jnp.mean((model(x) - x) ** 2)  # noqa: E731
        optimizer.update(model, nnx.grad(loss)(model))

    for seed in range(3):
        step(model, optimizer, jax.random.normal(jax.random.key(seed), (5, 3)))
    after = nnx.pure(nnx.state(model, nnx.Param))
    averages = made.averaged_params(nnx.pure(optimizer.opt_state), after)
    assert_same(after["layers"][0], before["layers"][0])
    for found in (after, averages):
        assert bool(jnp.any(found["layers"][1]["kernel"] != before["layers"][1]["kernel"]))
    assert bool(jnp.any(averages["norm"]["bias"] != after["norm"]["bias"]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_orbax_restores_every_bit(tmp_path, dtype):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    fields = {"gradient_accumulation_steps": 2, "on_nonfinite": "skip", "clipnorm": 1.0}
    made = factory("nadam", fields, ema={}, param_groups=FIRST)
    params, grads = {**tree(1, dtype=dtype), "count": jnp.int32(3)}, gradients()
    grads = [{**g, "count": jnp.int32(0)} for g in grads]
    tx = optax.chain(made.build_optimizer(params), optax.identity())
    # In the middle of an accumulation.
    saved = train(tx, params, grads[: STEPS // 2 - 1])
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", saved)
        checkpointer.wait_until_finished()
        like = jax.eval_shape(lambda params: (params, tx.init(params)), params)
        restored = checkpointer.restore(tmp_path / "saved", like)
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    assert_same(restored, saved)
    dtypes = [[x.dtype for x in jax.tree.leaves(each)] for each in (restored, saved)]
    assert dtypes[0] == dtypes[1]
    assert_same(
        train(tx, restored[0], grads[STEPS // 2 - 1 :], restored[1]),
        train(tx, saved[0], grads[STEPS // 2 - 1 :], saved[1]),
    )
