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
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A gradient that is still to be multiplied, where an update does it on the way.

    The functions of this module take one where they take a gradient.

    Attributes:
        values: A dense tensor, or a variable.
        factor: A number or a float32 scalar; None for 1.
        copies: The same on each device of this process; empty for one for all.
    """

    values: Any
    factor: Any = None
    copies: tuple[Any, ...] = ()

    @property
    def dtype(self) -> Any:
        """The dtype of the gradient."""
        return self.values.dtype

    @property
    def shape(self) -> Any:
        """The shape of the gradient."""
        return self.values.shape

    def on(self, device: int) -> Any:
        """Returns the values on a device of this process."""
        return self.copies[device] if self.copies else self.values

    def times(self, factor: Any) -> "Scaled":
        """Returns the gradient times a factor, which is not multiplied yet either."""
        factor = factor if isinstance(factor, float) else ops.cast(factor, "float32")
        factor = factor if self.factor is None else self.factor * factor
        return dataclasses.replace(self, factor=factor)


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
    """Returns a sparse gradient, or one still to be scaled, as a tensor; any other as it is."""
    if isinstance(gradient, Scaled):
        factor = gradient.factor
        return gradient.values if factor is None else scale(gradient.values, factor)
    return tf.convert_to_tensor(gradient) if is_sparse(gradient) else gradient


def bare(gradient: Any) -> Any:
    """Returns a gradient that is still to be scaled as a tensor, any other as it is."""
    return densify(gradient) if isinstance(gradient, Scaled) else gradient


def map_values(function: Callable[[Any], Any], gradient: Any) -> Any:
    """Applies a function to a gradient's values, those of its rows if it is sparse."""
    if is_sparse(gradient):
        return tf.IndexedSlices(function(gradient.values), gradient.indices, gradient.dense_shape)
    return function(densify(gradient))


def scale(gradient: Any, factor: Any) -> Any:
    """Returns g * factor, in the dtype of g."""
    if isinstance(gradient, Scaled):
        return gradient.times(factor)
    if isinstance(factor, float):  # of which a cast would make a float32 tensor first
        return map_values(lambda values: values * factor, gradient)
    return map_values(lambda values: values * ops.cast(factor, values.dtype), gradient)


def sum_of_squares(x: Any, axis: int | None = None) -> Any:
    """Returns sum(x^2) over an axis, or over all, of a dense tensor, in its dtype."""
    return 2 * _half_sum_of_squares(x) if axis is None else ops.sum(ops.square(x), axis=axis)


def _squared_norm(gradient: Any) -> Any:
    return _together([gradient])


def _together(gradients: Sequence[Any]) -> Any:
    """Returns the sum of squares over all gradients, a float32 scalar.

    Those with one factor share its operations.
    """
    parts: dict[Any, tuple[Any, list[Any]]] = {}
    for gradient in gradients:
        factor = gradient.factor if isinstance(gradient, Scaled) else None
        values = gradient.values if _is_marked(gradient) else gradient
        # In float32: a sum of squares overflows float16 and is coarse in bfloat16.
        squares = _half_sum_of_squares(ops.cast(values, "float32"))
        parts.setdefault(_identity(factor), (factor, []))[1].append(squares)
    totals = [
        (1.0 if factor is None else ops.square(factor)) * ops.sum(ops.stack(squares))
        for factor, squares in parts.values()
    ]
    return 2 * sum(totals)


def _half_sum_of_squares(x: Any) -> Any:
    if keras.backend.backend() == "tensorflow":
        return tf.nn.l2_loss(x)  # in parallel, and without a tensor of all squares
    return ops.sum(ops.square(x)) / 2


def _is_marked(gradient: Any) -> bool:
    return isinstance(gradient, Scaled) or is_sparse(gradient)


def _identity(factor: Any) -> Any:
    return factor if isinstance(factor, float | None) else id(factor)


def scale_all(gradients: Sequence[Any], factor: Any) -> list[Any]:
    """Returns each gradient times one factor."""
    products: dict[Any, Any] = {}
    scaled = []
    for gradient in gradients:
        if isinstance(gradient, Scaled):
            known = _identity(gradient.factor)
            if known not in products:
                products[known] = gradient.times(factor).factor
            scaled.append(dataclasses.replace(gradient, factor=products[known]))
        else:
            scaled.append(scale(gradient, factor))
    return scaled


def global_norm(gradients: Sequence[Any]) -> Any:
    """Returns the root of the sum of squares over all gradients, a float32 scalar.

    Sparse gradients must not repeat an index.
    """
    return ops.sqrt(_together(gradients))


def is_finite(gradient: Any) -> Any:
    """Says whether all entries are finite."""
    return ops.all(ops.isfinite(gradient.values if _is_marked(gradient) else gradient))


def largest(gradient: Any) -> Any:
    """Returns the largest absolute value of an entry."""
    return ops.max(ops.abs(gradient.values if is_sparse(gradient) else densify(gradient)))


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
    return scale_all(gradients, factor)


def clip_by_value(gradient: Any, bound: float) -> Any:
    """Returns min(max(g, -bound), bound), elementwise."""
    return map_values(lambda values: ops.clip(values, -bound, bound), gradient)


def without_autograd() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which PyTorch records no graph; nothing on other backends."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
