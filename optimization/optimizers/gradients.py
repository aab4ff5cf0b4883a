"""Gradients as they reach an optimizer: dense or sparse; summed, scaled and clipped.

Sparse gradients are `tf.IndexedSlices`; the functions here keep them sparse. What an update then
reads depends on the algorithm:

- SGD without momentum and weight decay: the rows that have a gradient, nothing else;
- Keras' Adagrad: it changes these rows only, but reads its whole accumulator;
- all others: every row, since moments and weight decay act where the gradient is 0 too, and the
  result is the one of the dense gradient.

Adaptive clipping, accumulation, XLA (`jit_compile`) and the optimizers of this package that are not
Keras' make a gradient dense.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def is_sparse(gradient: Any) -> bool:
    """Says whether a gradient holds some rows only."""
    return keras.backend.backend() == "tensorflow" and isinstance(gradient, tf.IndexedSlices)


def sum_duplicates(gradient: Any) -> Any:
    """Sums the rows of a sparse gradient that share an index; a dense one is returned as it is.

    Squares, norms and scatter updates of a sparse gradient are wrong while an index repeats.
    """
    if not is_sparse(gradient):
        return gradient
    indices, positions = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, positions, tf.shape(indices)[0])
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def densify(gradient: Any) -> Any:
    """Returns a sparse gradient as a dense tensor, a dense one as it is."""
    return tf.convert_to_tensor(gradient) if is_sparse(gradient) else gradient


def map_values(function: Callable[[Any], Any], gradient: Any) -> Any:
    """Applies a function to a gradient's values, those of its rows if it is sparse."""
    if is_sparse(gradient):
        return tf.IndexedSlices(function(gradient.values), gradient.indices, gradient.dense_shape)
    return function(gradient)


def scale(gradient: Any, factor: Any) -> Any:
    """Returns g * factor, in the dtype of g."""
    return map_values(lambda values: values * ops.cast(factor, values.dtype), gradient)


def _squared_norm(gradient: Any) -> Any:
    # In float32: a sum of squares overflows float16 and is coarse in bfloat16.
    values = gradient.values if is_sparse(gradient) else gradient
    return ops.sum(ops.square(ops.cast(values, "float32")))


def global_norm(gradients: Sequence[Any]) -> Any:
    """Returns the root of the sum of squares over all gradients, a float32 scalar.

    Sparse gradients must not repeat an index.
    """
    return ops.sqrt(ops.sum(ops.stack([_squared_norm(gradient) for gradient in gradients])))


def largest(gradient: Any) -> Any:
    """Returns the largest absolute value of an entry."""
    return ops.max(ops.abs(gradient.values if is_sparse(gradient) else gradient))


def clip_by_norm(gradient: Any, bound: float) -> Any:
    """Returns g * bound / max(|g|, bound)."""
    norm = ops.sqrt(_squared_norm(gradient))
    return scale(gradient, bound / ops.maximum(norm, bound))


def clip_by_global_norm(gradients: Sequence[Any], bound: float, norm: Any = None) -> list[Any]:
    """Returns each g * bound / max(norm, bound), with the norm over all gradients if not given.

    A norm that is not finite makes every gradient NaN, as in Keras: it can't be clipped.
    """
    norm = global_norm(gradients) if norm is None else norm
    factor = bound / ops.maximum(norm, bound) + (norm - norm)
    return [scale(gradient, factor) for gradient in gradients]


def clip_by_value(gradient: Any, bound: float) -> Any:
    """Returns min(max(g, -bound), bound), elementwise."""
    return map_values(lambda values: ops.clip(values, -bound, bound), gradient)


def without_autograd() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which PyTorch records no graph; nothing on other backends."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
