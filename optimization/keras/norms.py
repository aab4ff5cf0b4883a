"""Norms of tensors of Keras, whatever the size of the entries; see `optimization.rules.norms`."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from optimization.keras.control import either, tf
from optimization.rules import norms
from optimization.rules.norms import Norm

_FOLDS = 16


def root_of_squares(
    squares: Callable[[Sequence[Any], Any], Any], tensors: Sequence[Any], large_only: bool = False
) -> Norm:
    """Returns the root of sums of squares; see `norms.root_of_squares`."""
    tensors = [ops.convert_to_tensor(x) for x in tensors]
    return norms.root_of_squares(squares, tensors, ops, either, large_only)


def norm(x: Any) -> Norm:
    """Returns the L2 norm of a dense tensor."""
    return root_of_squares(lambda tensors, factor: sum_of_squares(times(tensors[0], factor)), [x])


def times(x: Any, factor: Any) -> Any:
    """Returns x * factor in float32 at least; None is 1."""
    # A sum of squares overflows float16 and is coarse in bfloat16.
    x = x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")
    return x if factor is None else x * ops.cast(factor, x.dtype)


def sum_of_squares(x: Any) -> Any:
    """Returns sum(x^2) of a dense tensor, in its dtype."""
    return 2 * half_sum_of_squares(x)


def half_sum_of_squares(x: Any) -> Any:
    """Returns sum(x^2) / 2 of a dense tensor, in its dtype."""
    if tf is not None:
        return tf.nn.l2_loss(x)  # in parallel, and without a tensor of all squares
    return ops.sum(ops.square(x)) / 2


# On TensorFlow, where XLA's own sums take several times as long


def folded(x: Any, axis: int | None = None) -> Any:
    """Returns sums of squares with 1/16 of the entries of x along an axis, or along any for None.

    XLA compiles it. The rest of the sum is a small one. XLA's own sums, and TensorFlow's over any
    axis but the last, take three times as long as these 16 additions in one pass.
    """
    if axis is None:  # Not the last, if possible, along which entries are loaded together.
        axis = next((i for i, size in enumerate(x.shape) if size >= 2 * _FOLDS), 0)
    size, shape = x.shape[axis] if x.shape.rank else 1, list(x.shape)
    if size < 2 * _FOLDS:
        return tf.square(x)
    length = size // _FOLDS
    shape[axis : axis + 1] = [_FOLDS, length]
    first, rest = tf.split(x, [_FOLDS * length, size % _FOLDS], axis=axis)
    total = tf.reduce_sum(tf.square(tf.reshape(first, shape)), axis=axis)
    return tf.concat([total, tf.square(rest)], axis=axis) if size % _FOLDS else total


def squares_along_last(x: Any) -> Any:
    """Returns sum(x^2) over the last axis, in parallel, without a tensor of all squares."""
    return tf.square(tf.raw_ops.EuclideanNorm(input=x, axis=[len(x.shape) - 1]))


def norms_along_last(x: Any) -> Norm:
    def squares(tensors: Sequence[Any], factor: Any) -> Any:
        return squares_along_last(times(tensors[0], None if factor is None else factor[..., None]))

    return root_of_squares(squares, [x], large_only=True)
