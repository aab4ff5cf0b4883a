"""TensorFlow Model Garden's optimizers, which need TensorFlow 2.20 and tf_keras.

    python3 -m venv garden
    garden/bin/pip install 'tensorflow==2.20.*' 'tf_keras==2.20.*' gin-config pyyaml absl-py
    garden/bin/pip install --no-deps tf-models-official==2.20.0
    python -m tools.benchmark --python garden=garden/bin/python

They are the "legacy" ones, which its factory builds unless told otherwise.
"""

import importlib.metadata
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.modeling import optimization

from tools.benchmark.contestants import UnsupportedError, tensorflow_loop
from tools.benchmark.lists import Parameter
from tools.benchmark.variants import (
    BETA_1,
    BETA_2,
    CLIP_NORM,
    EMA_DECAY,
    EPSILON,
    EXCLUDED,
    MOMENTUM,
    TRUST_COEFFICIENT,
    Variant,
)

_ADAM = {"beta_1": BETA_1, "beta_2": BETA_2, "epsilon": EPSILON}
_SECTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("adamw", {**_ADAM, "gradient_clip_norm": 0.0}),
    "lamb": ("lamb", _ADAM),
    "lars": ("lars", {"momentum": MOMENTUM, "eeta": TRUST_COEFFICIENT}),
    "sgd": ("sgd", {"momentum": MOMENTUM}),
}


class Garden:
    """Model Garden's optimizers.

    Args:
        jit_compile: Whether the update is compiled by XLA.
    """

    def __init__(self, jit_compile: bool = False) -> None:
        self._jit_compile = jit_compile

    def versions(self) -> dict[str, str]:
        """Returns the versions of Model Garden and TensorFlow."""
        try:
            garden = importlib.metadata.version("tf-models-official")
        except importlib.metadata.PackageNotFoundError:
            garden = "unknown"
        return {"tf-models-official": garden, "tensorflow": tf.__version__}

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> "_Update":
        """Returns the update of these parameters."""
        factory = optimization.OptimizerFactory(_config(variant))
        optimizer = factory.build_optimizer(factory.build_learning_rate())
        weights = [tf.Variable(t.weights(), name=t.name) for t in tensors]
        gradients = [tensorflow_loop.variable(t) for t in tensors]
        if variant.ema:
            optimizer.shadow_copy(types.SimpleNamespace(trainable_variables=weights))
        return _Update(optimizer, weights, gradients, self._jit_compile)


def _config(variant: Variant) -> optimization.OptimizationConfig:
    if variant.accumulation > 1:
        raise UnsupportedError("Model Garden does not accumulate gradients")
    if variant.algorithm not in _SECTIONS:
        raise UnsupportedError(f"Model Garden has no {variant.algorithm}")
    name, section = _SECTIONS[variant.algorithm]
    section = dict(section)
    if variant.weight_decay:
        section["weight_decay_rate"] = variant.weight_decay
    if variant.exclude:
        section["exclude_from_weight_decay"] = list(EXCLUDED)
    if variant.clip:
        section["gradient_clip_norm"] = CLIP_NORM
    params: dict[str, Any] = {
        "optimizer": {"type": name, name: section},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": variant.learning_rate}},
    }
    if variant.ema:
        params["ema"] = {"average_decay": EMA_DECAY, "dynamic_decay": False, "start_step": 2}
    return optimization.OptimizationConfig(params)


class _Update(tensorflow_loop.Loop):
    def __init__(
        self, optimizer: Any, weights: list[tf.Variable], gradients: list[tf.Variable], jit: bool
    ) -> None:
        def apply(values: list) -> None:
            optimizer.apply_gradients(zip(values, weights, strict=True))

        # XLA makes no variables: the moments must be there before.
        inner = getattr(optimizer, "_optimizer", optimizer)
        for each in (optimizer, inner):
            _ = each.iterations
        inner._create_all_weights(weights)
        if jit:
            apply = tf.function(apply, jit_compile=True, autograph=False)
        super().__init__(gradients, apply)
        self._optimizer = optimizer
        self._inner = inner
        self._weights = weights

    def weights(self) -> list[np.ndarray]:
        return [weight.numpy() for weight in self._weights]

    def averages(self) -> list[np.ndarray] | None:
        averages = getattr(self._optimizer, "_average_weights", None)
        return None if averages is None else [average.numpy() for average in averages]

    def state_bytes(self) -> int:
        both = [*self._optimizer.variables(), *self._inner.variables()]
        return tensorflow_loop.total_bytes(list({id(v): v for v in both}.values()))

    def close(self) -> None:
        tf_keras.backend.clear_session()
