"""How Keras computes a schedule: in float64, which holds all steps up to 2**53 exactly.

Float32 has no 2**24 + 1, so a boundary there would be passed a step late. The result is float32.
Keras counts updates in int64 on TensorFlow, and in int32, up to 2**31 - 1, on JAX and PyTorch.
TPUs and Apple's GPUs have no float64: there a schedule is computed in float32.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from optimization.schedules.base import Array, Namespace

_BACKEND = keras.backend.backend()

if _BACKEND == "tensorflow":
    import tensorflow as tf
elif _BACKEND == "jax":
    import jax
elif _BACKEND == "torch":
    import torch


def evaluated(function: Callable[[Array, Namespace], Array], step: Any) -> Any:
    """Returns `function(step, xp)` as a float32 tensor, for a number, tensor or variable `step`."""
    if not _has_float64():
        return ops.cast(function(ops.convert_to_tensor(step, "float32"), _OPS), "float32")
    if _BACKEND == "jax":
        step = step.value if isinstance(step, keras.Variable) else step
        with _wide():
            value = function(jax.numpy.asarray(step, "float64"), jax.numpy)
            return jax.numpy.asarray(value, "float32")
    return ops.cast(function(ops.convert_to_tensor(step, "float64"), _OPS), "float32")


def called(schedule: Callable[[Any], Any], step: Array) -> Array:
    """Returns what another schedule has for steps, in their dtype.

    Optimizers count in integers, which is what it may rely on.
    """
    if _BACKEND == "jax" and _has_float64():
        with _wide(False):
            value = schedule(jax.numpy.asarray(step, "int32"))
        return jax.numpy.asarray(value, step.dtype)
    value = schedule(ops.cast(step, "int32" if _BACKEND == "jax" else "int64"))
    return ops.cast(value, step.dtype)


def _has_float64() -> bool:
    if _BACKEND == "tensorflow":
        return not tf.config.list_logical_devices("TPU")
    if _BACKEND == "jax":
        return jax.default_backend() in ("cpu", "gpu", "cuda", "rocm")
    return _BACKEND != "torch" or keras.src.backend.torch.core.get_device() != "mps"


def _wide(on: bool = True) -> contextlib.AbstractContextManager[Any]:
    """Has JAX keep float64 inside a `with` block, also while it traces."""
    owner = jax if hasattr(jax, "enable_x64") else jax.experimental
    return owner.enable_x64(on)


class _Ops:
    """`keras.ops`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)


class _TensorFlow(_Ops):
    """`keras.ops` for TensorFlow, but for what fails in graphs with Keras 3.10."""

    def searchsorted(self, edges: Any, values: Any, side: str = "left") -> Any:
        return tf.searchsorted(edges, values, side=side)


class _Torch(_Ops):
    """`keras.ops` for PyTorch, but for those that make float32 of float64."""

    def maximum(self, one: Any, other: Any) -> Any:
        return torch.maximum(*_alike(one, other))

    def minimum(self, one: Any, other: Any) -> Any:
        return torch.minimum(*_alike(one, other))

    def floor(self, x: Any) -> Any:
        return torch.floor(x)


_OPS = {"tensorflow": _TensorFlow, "torch": _Torch}.get(_BACKEND, _Ops)()


def _alike(*values: Any) -> list[Any]:
    """Returns numbers and tensors as tensors of one dtype."""
    tensor = next(value for value in values if isinstance(value, torch.Tensor))
    return [torch.as_tensor(v, dtype=tensor.dtype, device=tensor.device) for v in values]
