"""Norms of finite tensors that are finite, and not 0, whatever the size of the entries.

The square of 1.9e19 is infinite in float32, that of 1e-23 is 0. So where a sum of squares is not
between 1e-24 and infinity it is taken again, of the entries times a power of two. Otherwise the
tensors are read once.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from optimization.keras.control import either, tf

_FOLDS = 16
_LARGE, _SMALL = 2.0**100, 2.0**-100
_LEAST = 2.0**-80  # Less may have lost digits: squares are multiples of 1e-45, or 0 below 1e-38.


@dataclasses.dataclass(frozen=True)
class Norm:
    """A norm, root * unit, where float32 may hold the two and not their product.

    Attributes:
        root: A float32 tensor; the square of the norm is its square times that of the unit.
        unit: Powers of two of the same shape, 1 for ordinary norms.
    """

    root: Any
    unit: Any

    @property
    def value(self) -> Any:
        """The norm; infinite if it is above 3.4e38."""
        return self.root * self.unit

    def clip(self, bound: Any) -> tuple[Any, Any]:
        """Returns what clips: x / divisor * factor has the norm min(norm, bound).

        The divisor is 1 unless the norm is very large, when a factor alone might be 0 in float32.
        (Two factors might be multiplied with each other by whoever optimizes a graph.) A norm that
        is infinite or NaN makes the factor NaN, as in Keras: it can't be clipped.
        """
        divisor = ops.maximum(self.unit, 1.0)
        root = self.root * ops.minimum(self.unit, 1.0)
        exceeds = root > bound / divisor
        factor = ops.where(exceeds, bound / ops.where(exceeds, root, 1.0), divisor)
        return divisor, factor + (root - root)

    def limited(self, bound: float) -> "Norm":
        """Returns the norm of what is clipped by `bound`."""
        root = ops.minimum(self.value, bound) + (self.root - self.root)
        return Norm(root, ops.ones_like(root))

    def __gt__(self, bound: Any) -> Any:
        return self.value > bound


def root_of_squares(
    squares: Callable[[Sequence[Any], Any], Any], tensors: Sequence[Any], large_only: bool = False
) -> Norm:
    """Returns the root of sums of squares.

    Args:
        squares: Returns the sums, in float32, of tensors times a factor that has the shape of the
            sums; None is 1.
        tensors: Its first argument.
        large_only: Whether norms below 1e-12 may be 0.
    """
    tensors = [ops.convert_to_tensor(x) for x in tensors]
    usual = squares(tensors, None)
    fine = ops.isfinite(usual)
    if not large_only:
        fine = ops.logical_and(fine, usual >= _LEAST)

    def as_they_are(usual: Any, fine: Any, *tensors: Any) -> tuple[Any, Any]:
        return ops.sqrt(usual), ops.ones_like(usual)

    def in_units(usual: Any, fine: Any, *tensors: Any) -> tuple[Any, Any]:
        ones = ops.ones_like(usual)
        small = usual < _LEAST
        factor = ops.where(fine, ones, ops.where(small, _LARGE * ones, _SMALL * ones))
        unit = ops.where(fine, ones, ops.where(small, _SMALL * ones, _LARGE * ones))
        return ops.sqrt(squares(tensors, factor)), unit

    return Norm(*either(ops.all(fine), as_they_are, in_units, [usual, fine, *tensors]))


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
