"""Sums of squares on TensorFlow, where XLA's own take several times as long."""

from collections.abc import Sequence
from typing import Any

import keras

from optimization.keras.norms import Norm, norm, root_of_squares, times

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

_FOLDS = 16


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


def of_gradient(row: Any, axis: int) -> Any:
    """Returns sum(g^2) along the last axis, of the scaled gradient of a `kernels.Row`."""
    if row.divisor is not None:  # It is clipped, and may be large before.
        return tf.square(_scaled(_axis_norm(row.values, axis), row))
    total = _along_last(row.values, axis)
    return total if row.factor is None else total * tf.cast(tf.square(row.factor), total.dtype)


def norm_of_gradient(row: Any) -> Any:
    """Returns the norm of the scaled gradient of a `kernels.Row`."""
    # It is clipped, and may be large before.
    return _scaled(norm(row.values), row)


def _scaled(found: Norm, row: Any) -> Any:
    # The norm itself may be infinite where that of what it is divided by is not.
    unit = found.unit if row.divisor is None else found.unit / row.divisor
    length = tf.cast(found.root * unit, row.values.dtype)
    return length if row.factor is None else length * tf.cast(row.factor, length.dtype)


def _along_last(x: Any, axis: int) -> Any:
    """Returns sum(x^2) over the last axis, in parallel, without a tensor of all squares."""
    return tf.square(tf.raw_ops.EuclideanNorm(input=x, axis=[axis]))


def _axis_norm(x: Any, axis: int) -> Norm:
    """Returns the norms along the last axis."""

    def squares(tensors: Sequence[Any], factor: Any) -> Any:
        factor = None if factor is None else factor[..., None]
        return _along_last(times(tensors[0], factor), axis)

    return root_of_squares(squares, [x], large_only=True)
