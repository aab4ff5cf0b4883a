"""Every registered rule in every position of its switches: as a gradient transformation."""

import warnings

import numpy as np
import pytest

from tests.rules import contracts

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

from optimization import ConfigWarning, OptimizationConfig  # noqa: E402
from optimization.jax import OptimizerFactory  # noqa: E402


def trained(config, initial, gradients, **lengths):
    """Returns parameters after an update with each gradient, and the state."""
    params = {path: jax.numpy.float32(w) for path, w in initial.items()}
    tx = OptimizerFactory(config, **lengths).build_optimizer(params)
    grads = {path: np.float32([g[path] for g in gradients]) for path in initial}

    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def train(params, grads):
        return jax.lax.scan(step, (params, tx.init(params)), grads)[0]

    return jax.jit(train)(params, grads)


@contracts.every_case(contracts.switched)
def test_jax_is_numpy(kind, fields):
    section = contracts.section_of(kind, fields)
    own = section.own_learning_rate()
    rates = {} if own else {"learning_rate": contracts.RATE}
    clips = {"gradient_clip_norm": 0.0, "global_clipnorm": None}
    off = {name: value for name, value in clips.items() if getattr(section, name, None)}
    config = OptimizationConfig({"optimizer": {"type": kind, kind: {**fields, **off}}, **rates})
    initial, gradients = contracts.problem(steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConfigWarning
        )  # a schedule-free optimizer needs no schedule
        params, _ = trained(config, initial, gradients)
    expected = contracts.numpy_weights(section, initial, gradients, contracts.stepped)
    found = {path: np.asarray(w) for path, w in params.items()}
    assert contracts.difference(found, expected) < contracts.float32_limit(kind)
