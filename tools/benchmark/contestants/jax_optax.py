"""optax' optimizers on JAX, and this project's."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import optimization
from tools.benchmark.contestants import UnsupportedError
from tools.benchmark.lists import Parameter
from tools.benchmark.variants import (
    ACCUMULATOR,
    ADOPT_BETA_2,
    BETA_1,
    BETA_2,
    CLIP_NORM,
    EMA_DECAY,
    EPSILON,
    EXCLUDED,
    LION_BETA_2,
    MOMENTUM,
    MUON_MOMENTUM,
    MUON_RMS,
    PRODIGY_FACTOR,
    PRODIGY_START,
    RHO,
    SLOW_ALPHA,
    SLOW_BETA,
    TRUST_COEFFICIENT,
    Variant,
)


class Optax:
    """optax' optimizers, compiled."""

    def versions(self) -> dict[str, str]:
        """Returns the versions of optax and JAX."""
        return {"optax": optax.__version__, "jax": jax.__version__}

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> "_Update":
        """Returns the update of these parameters."""
        names = [t.name for t in tensors]
        decays = {x: not (variant.exclude and any(y in x for y in EXCLUDED)) for x in names}
        return _Update(tensors, _transformation(variant, decays), variant.ema)


class ProjectJax:
    """This project's factory on JAX, compiled."""

    def versions(self) -> dict[str, str]:
        """Returns the versions of the project, of optax and of JAX."""
        return {"optimizer-factory": optimization.__version__, **Optax().versions()}

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> "_Update":
        """Returns the update of these parameters."""
        from optimization.jax import OptimizerFactory
        from tools.benchmark.contestants.configs import config

        factory = OptimizerFactory(config(variant, native=True))
        params = {t.name: jax.ShapeDtypeStruct(t.shape, jnp.float32) for t in tensors}
        return _ProjectUpdate(
            tensors, factory.build_optimizer(params), factory.averaged_params, variant.ema
        )


_ADAM = {"b1": BETA_1, "b2": BETA_2, "eps": EPSILON}
_CONTRIBUTED: dict[str, dict[str, Any]] = {
    "ademamix": {**_ADAM, "b3": SLOW_BETA, "alpha": SLOW_ALPHA},
    "adopt": {**_ADAM, "b2": ADOPT_BETA_2},
    "muon": {
        **{"beta": MUON_MOMENTUM, "nesterov": False, "consistent_rms": MUON_RMS},
        **{"adam_b1": BETA_1, "adam_b2": BETA_2, "eps": EPSILON},
    },
    "prodigy": {
        **{"betas": (BETA_1, BETA_2), "eps": EPSILON},
        **{"estim_lr0": PRODIGY_START, "estim_lr_coef": PRODIGY_FACTOR},
    },
    "schedule_free_adamw": _ADAM,
}


def _transformation(variant: Variant, decays: dict[str, bool]) -> optax.GradientTransformation:
    rate = variant.learning_rate
    adam = _ADAM
    if variant.algorithm == "adamw":
        result = optax.adamw(rate, **adam, weight_decay=variant.weight_decay, mask=decays)
    elif variant.algorithm == "lamb":
        result = optax.lamb(rate, **adam)
    elif variant.algorithm == "lars":
        result = optax.lars(rate, trust_coefficient=TRUST_COEFFICIENT, momentum=MOMENTUM)
    elif variant.algorithm == "adafactor":
        # The others factor every matrix.
        result = optax.adafactor(rate, min_dim_size_to_factor=1)
    elif variant.algorithm == "sgd":
        result = optax.sgd(rate, momentum=MOMENTUM)
    elif variant.algorithm == "lion":
        result = optax.lion(rate, b1=BETA_1, b2=LION_BETA_2, weight_decay=0.0)
    elif variant.algorithm == "adamax":
        result = optax.adamax(rate, **adam)
    elif variant.algorithm == "adagrad":
        result = optax.adagrad(rate, initial_accumulator_value=ACCUMULATOR, eps=EPSILON)
    elif variant.algorithm == "rmsprop":
        result = optax.rmsprop(rate, decay=RHO, eps=EPSILON)
    elif variant.algorithm == "radam":
        result = optax.radam(rate, **adam)
    elif variant.algorithm in _CONTRIBUTED:
        cls = getattr(optax.contrib, variant.algorithm)
        result = cls(rate, **_CONTRIBUTED[variant.algorithm])
    else:
        raise UnsupportedError(f"optax has no {variant.algorithm}")
    if variant.clip:
        result = optax.chain(optax.clip_by_global_norm(CLIP_NORM), result)
    if variant.accumulation > 1:
        return optax.MultiSteps(result, variant.accumulation)
    return result


class _Update:
    def __init__(
        self,
        tensors: Sequence[Parameter],
        transformation: optax.GradientTransformation,
        ema: bool,
    ) -> None:
        # Copies: a buffer shared with NumPy could not be donated.
        self._names = [t.name for t in tensors]
        self._weights = {t.name: jnp.array(t.weights(), copy=True) for t in tensors}
        self._gradients = {t.name: jnp.array(t.gradient(), copy=True) for t in tensors}
        # Copies: a first state that is the weights themselves could not be donated beside these.
        self._state = jax.tree.map(jnp.copy, transformation.init(self._weights))
        self._averages = jax.tree.map(jnp.copy, self._weights) if ema else None
        self._count = jnp.zeros((), jnp.int32)

        def step(weights, state, averages, count, gradients):
            updates, state = transformation.update(gradients, state, weights)
            weights = optax.apply_updates(weights, updates)
            if averages is not None:
                share = jnp.where(count == 0, 1.0, 1 - EMA_DECAY)
                averages = optax.incremental_update(weights, averages, share)
            return weights, state, averages, count + 1

        self._step = jax.jit(step, donate_argnums=(0, 1, 2, 3))

    def run(self, calls: int) -> None:
        for _ in range(calls):
            self._weights, self._state, self._averages, self._count = self._step(
                self._weights, self._state, self._averages, self._count, self._gradients
            )
        jax.block_until_ready((self._weights, self._state, self._averages))

    def set_gradients(self, gradients: Sequence[np.ndarray]) -> None:
        pairs = zip(self._names, gradients, strict=True)
        self._gradients = {name: jnp.array(gradient, copy=True) for name, gradient in pairs}

    def weights(self) -> list[np.ndarray]:
        return self._arrays(self._weights)

    def averages(self) -> list[np.ndarray] | None:
        return None if self._averages is None else self._arrays(self._averages)

    def _arrays(self, tree: dict[str, jax.Array]) -> list[np.ndarray]:
        return [np.asarray(tree[name]) for name in self._names]

    def state_bytes(self) -> int:
        leaves = jax.tree.leaves((self._state, self._averages))
        return sum(leaf.nbytes for leaf in leaves)

    def close(self) -> None:
        jax.clear_caches()


class _ProjectUpdate(_Update):
    """The average is in the state."""

    def __init__(
        self,
        tensors: Sequence[Parameter],
        transformation: optax.GradientTransformation,
        averaged: Callable[[Any, Any], Any],
        ema: bool,
    ) -> None:
        super().__init__(tensors, transformation, ema=False)
        self._averaged = averaged if ema else None

    def averages(self) -> list[np.ndarray] | None:
        if self._averaged is None:
            return None
        return self._arrays(self._averaged(self._state, self._weights))
