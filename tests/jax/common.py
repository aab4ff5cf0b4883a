"""Parameters, gradients and training that the tests of `optimization.jax` share."""

import numpy as np
import pytest

from optimization import OptimizationConfig

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

from optimization.jax import OptimizerFactory  # noqa: E402

SHAPES = {
    "embed": {"embedding": (7, 4)},
    "layer_0": {"kernel": (6, 5), "bias": (5,)},
    "layer_1": {"kernel": (5, 5), "bias": (5,)},
    "head": {"kernel": (5, 3), "bias": (3,)},
}
STEPS = 12


def tree(seed, scale=0.3, dtype="float32"):
    """Returns arrays of `SHAPES`."""
    random = np.random.default_rng(seed)
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    draw = lambda shape: jax.numpy.asarray(random.normal(0, scale, shape), dtype)  # noqa: E731
    return {k: {n: draw(s) for n, s in v.items()} for k, v in SHAPES.items() if not is_shape(v)}


def config(optimizer, fields=None, rate=0.1, **sections):
    """Returns a config of an optimizer with a constant rate, clips off unless asked for."""
    section = OptimizationConfig({"optimizer": {"type": optimizer}}).optimizer.get()
    clips = {"gradient_clip_norm": 0.0, "global_clipnorm": None}
    off = {name: value for name, value in clips.items() if getattr(section, name, None)}
    return OptimizationConfig(
        {
            "optimizer": {"type": optimizer, optimizer: {**off, **(fields or {})}},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": rate}},
            **sections,
        }
    )


def factory(*args, train_steps=100, **kwargs):
    """Returns a factory for what `config` returns."""
    return OptimizerFactory(config(*args, **kwargs), train_steps=train_steps)


def train(tx, params, gradients, state=None):
    """Returns parameters and state after an update with each gradient."""
    state = tx.init(params) if state is None else state

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for grads in gradients:
        params, state = step(params, state, grads)
    return params, state


def gradients(steps=STEPS, scale=0.5):
    """Returns gradients, a tree for each step."""
    return [tree(100 + step, scale) for step in range(steps)]


def assert_close(found, expected, limit=2e-6):
    """Raises where trees differ by more than a share of the largest entry."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    largest = max(float(np.abs(x).max()) for x in expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            np.asarray(a, "float64"), np.asarray(b, "float64"), rtol=0, atol=limit * largest
        )


def assert_same(found, expected):
    """Raises where trees are not equal bit for bit."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
