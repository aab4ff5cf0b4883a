"""Keras' own optimizers on TensorFlow."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tools.benchmark.contestants import UnsupportedError, tensorflow_loop
from tools.benchmark.lists import Parameter
from tools.benchmark.variants import (
    ACCUMULATOR,
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
    RHO,
    Variant,
)

_ADAM = {"beta_1": BETA_1, "beta_2": BETA_2, "epsilon": EPSILON}
_OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", _ADAM),
    "lamb": ("Lamb", _ADAM),
    "adafactor": ("Adafactor", {}),
    "sgd": ("SGD", {"momentum": MOMENTUM}),
    "lion": ("Lion", {"beta_1": BETA_1, "beta_2": LION_BETA_2}),
    "adamax": ("Adamax", _ADAM),
    "adagrad": ("Adagrad", {"initial_accumulator_value": ACCUMULATOR, "epsilon": EPSILON}),
    "rmsprop": ("RMSprop", {"rho": RHO, "epsilon": EPSILON}),
    "muon": (
        "Muon",
        {
            **{"momentum": MUON_MOMENTUM, "nesterov": False, "rms_rate": MUON_RMS},
            **{"weight_decay": 0.0, "adam_weight_decay": 0.0, "epsilon": EPSILON},
            **{"adam_beta_1": BETA_1, "adam_beta_2": BETA_2},
        },
    ),
}


class Keras:
    """Keras' optimizers.

    Args:
        jit_compile: Whether `apply` is compiled by XLA, as `compile(jit_compile=True)` does with
            the whole step.
    """

    def __init__(self, jit_compile: bool = False) -> None:
        self._jit_compile = jit_compile

    def versions(self) -> dict[str, str]:
        """Returns the versions of Keras and TensorFlow."""
        return {"keras": keras.__version__, "tensorflow": tf.__version__}

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> "_Update":
        """Returns the update of these parameters."""
        if variant.algorithm not in _OPTIMIZERS:
            raise UnsupportedError(f"Keras has no {variant.algorithm}")
        name, arguments = _OPTIMIZERS[variant.algorithm]
        arguments = dict(arguments)
        if variant.weight_decay:
            arguments["weight_decay"] = variant.weight_decay
        if variant.clip:
            arguments["global_clipnorm"] = CLIP_NORM
        if variant.ema:
            arguments |= {"use_ema": True, "ema_momentum": EMA_DECAY}
        if variant.accumulation > 1:
            arguments["gradient_accumulation_steps"] = variant.accumulation
        optimizer = getattr(keras.optimizers, name)(variant.learning_rate, **arguments)
        weights = [keras.Variable(t.weights(), name=t.name) for t in tensors]
        gradients = [tensorflow_loop.variable(t) for t in tensors]
        if variant.exclude:
            optimizer.exclude_from_weight_decay(var_names=list(EXCLUDED))
        optimizer.build(weights)
        return _Update(optimizer, weights, gradients, self._jit_compile)


class _Update(tensorflow_loop.Loop):
    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        weights: list[keras.Variable],
        gradients: list[tf.Variable],
        jit_compile: bool,
    ) -> None:
        def apply(values: list) -> None:
            optimizer.apply(values, weights)

        if jit_compile:
            apply = tf.function(apply, jit_compile=True, autograph=False)
        super().__init__(gradients, apply)
        self._optimizer = optimizer
        self._weights = weights

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(weight) for weight in self._weights]

    def averages(self) -> list[np.ndarray] | None:
        averages = getattr(self._optimizer, "_model_variables_moving_average", None)
        return None if not averages else [np.asarray(average) for average in averages]

    def state_bytes(self) -> int:
        return tensorflow_loop.total_bytes(self._optimizer.variables)

    def close(self) -> None:
        keras.utils.clear_session()
