"""Gradients as they reach an optimizer: dense or sparse; summed, scaled and clipped.

Sparse gradients are `tf.IndexedSlices`; the functions here keep them sparse. (Those of JAX and
PyTorch are made dense when a step begins.) What an update then reads depends on the algorithm:

- SGD without momentum and weight decay: the rows that have a gradient, nothing else;
- Keras' Adagrad: it changes these rows only, but reads its whole accumulator;
- all others: every row, since moments and weight decay act where the gradient is 0 too, and the
  result is the one of the dense gradient.

Adaptive clipping, accumulation, XLA (`jit_compile`) and the optimizers of this package that are not
Keras' make a gradient dense.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from optimization.configs.errors import shortened
from optimization.keras.control import either, tf
from optimization.keras.norms import Norm, half_sum_of_squares, root_of_squares, times

_SMALL = 2**12
_LOW_PRECISION = ("float16", "bfloat16")
_MOST = float(np.finfo("float32").max)


@dataclasses.dataclass(frozen=True)
class Postponed:
    """A gradient that is still to be multiplied, where an update does it on the way.

    The functions of this module take one where they take a gradient.

    Attributes:
        values: A dense tensor, or a variable.
        factor: A number or a float32 scalar; None for 1.
        divisor: What the values are divided by before, for a clip of very large ones; None for 1.
        copies: The same on each device of this process; empty for one for all.
    """

    values: Any
    factor: Any = None
    divisor: Any = None
    copies: tuple[Any, ...] = ()

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    def times(self, factor: Any) -> "Postponed":
        """Returns the gradient times a factor, which is not multiplied yet either."""
        factor = factor if isinstance(factor, float) else ops.cast(factor, "float32")
        factor = factor if self.factor is None else self.factor * factor
        return dataclasses.replace(self, factor=factor)

    def divided_by(self, divisor: Any) -> "Postponed":
        """Returns the gradient divided by a power of two, before it is multiplied."""
        divisor = divisor if self.divisor is None else self.divisor * divisor
        return dataclasses.replace(self, divisor=divisor)


def compute_dtype(variable: Any) -> str:
    """Returns the dtype to compute an update in: the variable's own, float32 at least.

    In bfloat16 `1 - beta_2` and small steps round to nothing, so nothing would be learned.
    """
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "float32" if dtype in _LOW_PRECISION else dtype


def of_other_shapes(grads: Sequence[Any], variables: Sequence[Any]) -> str:
    """Returns which gradients have not the shape of their variable, "" for none that is known."""
    others = []
    for gradient, variable in zip(grads, variables, strict=True):
        shape = getattr(gradient, "shape", None)  # what `strategy.run` returned has none
        if shape is None or getattr(shape, "rank", 0) is None:
            continue
        found, own = tuple(shape), tuple(variable.shape)
        sizes = itertools.zip_longest(found, own, fillvalue=-1)
        if any(a is not None and a != b for a, b in sizes):
            others.append(f"{found} for {variable.path!r} of {own}")
    return shortened("; ".join(others), 1000)


def is_overwritten(variable: Any) -> bool:
    """Says whether a variable's "gradient" is its new value, as float8 layers have for scales."""
    return getattr(variable, "overwrite_with_gradient", False)


def is_sparse(gradient: Any) -> bool:
    """Says whether a gradient holds some rows only."""
    return tf is not None and isinstance(gradient, tf.IndexedSlices)


def shaped(gradient: Any, shape: Any) -> Any:
    """Returns a dense gradient with its variable's shape, if a graph does not know it."""
    if tf is None or gradient.shape.is_fully_defined():
        return gradient
    return tf.ensure_shape(gradient, shape)


def with_values(gradient: Any, values: Any) -> Any:
    """Returns other values: as rows of a sparse gradient in place of its own, else as they are."""
    if not is_sparse(gradient):
        return values
    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def tensor_or_slices(gradient: Any) -> Any:
    """Returns a sparse tensor of JAX or PyTorch as a dense one; any other gradient as it is."""
    backend = keras.backend.backend()
    if backend == "jax" and hasattr(gradient, "todense"):
        return gradient.todense()
    if backend == "torch" and hasattr(gradient, "to_dense"):
        return gradient.to_dense()
    return gradient


def convert(gradient: Any, dtype: str) -> Any:
    """Returns a gradient in a dtype; a sparse one stays sparse."""
    if isinstance(gradient, Postponed):
        copies = tuple(ops.cast(copy, dtype) for copy in gradient.copies)
        values = copies[0] if copies else ops.cast(gradient.values, dtype)
        return dataclasses.replace(gradient, values=values, copies=copies)
    return map_values(lambda values: ops.cast(values, dtype), tensor_or_slices(gradient))


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
    if isinstance(gradient, Postponed):
        values = _before_factor(gradient)
        return values if gradient.factor is None else scale(values, gradient.factor)
    return tf.convert_to_tensor(gradient) if is_sparse(gradient) else tensor_or_slices(gradient)


def bare(gradient: Any) -> Any:
    """Returns a gradient that is still to be scaled as a tensor, any other as it is."""
    return densify(gradient) if isinstance(gradient, Postponed) else gradient


def map_values(function: Callable[[Any], Any], gradient: Any) -> Any:
    """Applies a function to a gradient's values, those of its rows if it is sparse."""
    return with_values(gradient, function(entries(gradient)))


def entries(gradient: Any) -> Any:
    """Returns a gradient's values, those of its rows if it is sparse."""
    return gradient.values if is_sparse(gradient) else densify(gradient)


def scale(gradient: Any, factor: Any) -> Any:
    """Returns g * factor, in the dtype of g."""
    if isinstance(gradient, Postponed):
        return gradient.times(factor)
    if isinstance(factor, float):  # of which a cast would make a float32 tensor first
        return map_values(lambda values: values * factor, gradient)
    return map_values(lambda values: values * ops.cast(factor, values.dtype), gradient)


def _identity(factor: Any) -> Any:
    return factor if isinstance(factor, float | None) else id(factor)


def scale_all(gradients: Sequence[Any], factor: Any, divisor: Any = None) -> list[Any]:
    """Returns each gradient divided by a power of two, and then times one factor."""
    gradients = list(gradients)
    if divisor is not None:
        gradients = _divided(gradients, [divisor] * len(gradients))
    products: dict[Any, Any] = {}

    def product(gradient: Any) -> Any:
        if not isinstance(gradient, Postponed):
            return scale(gradient, factor)
        known = _identity(gradient.factor)
        if known not in products:
            products[known] = gradient.times(factor).factor
        return dataclasses.replace(gradient, factor=products[known])

    return [product(gradient) for gradient in gradients]


def _divided(gradients: Sequence[Any], divisors: Sequence[Any]) -> list[Any]:
    """Returns gradients divided by what is almost always 1."""

    def same(divisors: Any, *values: Any) -> list[Any]:
        return list(values)

    def quotients(divisors: Any, *values: Any) -> list[Any]:
        pairs = zip(values, ops.unstack(divisors, len(values)), strict=True)
        return [x / ops.cast(divisor, x.dtype) for x, divisor in pairs]

    places = [i for i, gradient in enumerate(gradients) if not isinstance(gradient, Postponed)]
    values = [ops.convert_to_tensor(values_of(gradients[i])) for i in places]
    if values:
        own = ops.stack([divisors[i] for i in places])
        values = [*either(ops.all(ops.equal(own, 1.0)), same, quotients, [own, *values])]
    found = dict(zip(places, values, strict=True))
    return [
        with_values(gradient, found[i]) if i in found else gradient.divided_by(divisors[i])
        for i, gradient in enumerate(gradients)
    ]


def are_within(gradients: Sequence[Any], most: Sequence[float]) -> Any:
    """Says of each gradient whether all entries are finite, and none is larger than its bound.

    Sums of squares, which are read once, tell it of ordinary ones.
    """
    tensors = [ops.convert_to_tensor(values_of(gradient)) for gradient in gradients]
    pairs = zip(gradients, most, strict=True)
    bounds = ops.stack([_before_scaling(gradient, bound) for gradient, bound in pairs])
    halves = [ops.cast(half_sum_of_squares(times(x, None)), "float32") for x in tensors]
    fine = 2 * ops.stack(halves) <= ops.minimum(ops.square(bounds), _MOST)

    def as_they_are(fine: Any, bounds: Any, *tensors: Any) -> list[Any]:
        return [fine]

    def by_entries(fine: Any, bounds: Any, *tensors: Any) -> list[Any]:
        pairs = zip(tensors, ops.unstack(bounds, len(tensors)), strict=True)
        return [ops.stack([_is_within(times(x, None), bound) for x, bound in pairs])]

    (found,) = either(ops.all(fine), as_they_are, by_entries, [fine, bounds, *tensors])
    return found


def _before_scaling(gradient: Any, bound: float) -> Any:
    """Returns a bound of a gradient as that of the values which are still to be multiplied."""
    factor = gradient.factor if isinstance(gradient, Postponed) else None
    if factor is not None:
        bound = bound / ops.abs(ops.cast(factor, "float32"))
    return ops.minimum(ops.convert_to_tensor(bound, "float32"), _MOST)


def _is_within(x: Any, bound: Any) -> Any:
    is_float64 = keras.backend.standardize_dtype(x.dtype) == "float64"
    return ops.all(ops.isfinite(x) if is_float64 else ops.abs(x) <= bound)


def values_of(gradient: Any) -> Any:
    """Returns the tensor of a gradient's values, without what they are still to be scaled by."""
    is_marked = isinstance(gradient, Postponed) or is_sparse(gradient)
    return gradient.values if is_marked else gradient


def global_norm(gradients: Sequence[Any]) -> Norm:
    """Returns the norm over all gradients; sparse ones must not repeat an index."""
    # Those with one factor share its operations.
    parts: dict[Any, tuple[Any, list[Any]]] = {}
    for gradient in gradients:
        factor = gradient.factor if isinstance(gradient, Postponed) else None
        parts.setdefault(_identity(factor), (factor, []))[1].append(_before_factor(gradient))
    factors = [1.0 if factor is None else factor for factor, _ in parts.values()]
    joined = [_joined(values) for _, values in parts.values()]
    counts = [len(values) for values in joined]

    def squares(tensors: Sequence[Any], unit: Any) -> Any:
        factors, values = tensors[: len(counts)], tensors[len(counts) :]
        halves = (ops.cast(half_sum_of_squares(times(x, unit)), "float32") for x in values)
        sums = [ops.sum(ops.stack([*itertools.islice(halves, count)])) for count in counts]
        return 2 * sum(ops.square(f) * each for f, each in zip(factors, sums, strict=True))

    factors = [ops.convert_to_tensor(factor, "float32") for factor in factors]
    return root_of_squares(squares, [*factors, *(x for values in joined for x in values)])


def _joined(tensors: Sequence[Any]) -> list[Any]:
    """Returns the same numbers in fewer tensors: on TensorFlow small ones of a shape are stacked.

    An operation takes as long as it takes to copy some thousand numbers.
    """
    if tf is None:
        return list(tensors)
    together: dict[Any, list[Any]] = {}
    for x in tensors:
        shape = tuple(x.shape)
        is_small = None not in shape and math.prod(shape) < _SMALL
        together.setdefault((shape, x.dtype) if is_small else id(x), []).append(x)
    return [tf.stack(alike) if len(alike) > 1 else alike[0] for alike in together.values()]


def norms(gradients: Sequence[Any], large_only: bool = False) -> Norm:
    """Returns the norm of each gradient, in one tensor; see `root_of_squares`."""

    def squares(tensors: Sequence[Any], units: Any) -> Any:
        units = [None] * len(tensors) if units is None else ops.unstack(units, len(tensors))
        halves = [half_sum_of_squares(times(*each)) for each in zip(tensors, units, strict=True)]
        return 2 * ops.stack([ops.cast(half, "float32") for half in halves])

    found = root_of_squares(squares, [_before_factor(g) for g in gradients], large_only)
    factors = [g.factor if isinstance(g, Postponed) else None for g in gradients]
    if all(factor is None for factor in factors):
        return found
    factors = [ops.convert_to_tensor(1.0 if f is None else f, "float32") for f in factors]
    return Norm(found.root * ops.abs(ops.stack(factors)), found.unit, ops)


def _before_factor(gradient: Any) -> Any:
    """Returns the values, divided by what they are still to be divided by, but not multiplied."""
    values = values_of(gradient)
    divisor = gradient.divisor if isinstance(gradient, Postponed) else None
    return values if divisor is None else values / ops.cast(divisor, values.dtype)


def clip_by_norm(gradients: Sequence[Any], bound: Any) -> tuple[list[Any], Any]:
    """Returns each g * min(bound / |g|, 1), and which norms were above the bound."""
    found = norms(gradients, large_only=isinstance(bound, int | float) and bound > 1e-12)
    divisors, factors = (ops.unstack(each, len(gradients)) for each in found.clip(bound))
    divided = _divided(gradients, divisors)
    return [scale(g, factor) for g, factor in zip(divided, factors, strict=True)], found > bound


def clip_by_global_norm(
    gradients: Sequence[Any], bound: Any, norm: Norm | None = None
) -> list[Any]:
    """Returns each g * min(bound / norm, 1), with the norm over all gradients if not given.

    A norm that is not finite makes every gradient NaN, as in Keras: it can't be clipped.
    """
    norm = global_norm(gradients) if norm is None else norm
    divisor, factor = norm.clip(bound)
    return scale_all(gradients, factor, divisor)


def clip_by_value(gradient: Any, bound: Any) -> Any:
    """Returns min(max(g, -bound), bound), elementwise."""
    if isinstance(bound, int | float):
        return map_values(lambda values: ops.clip(values, -bound, bound), gradient)

    def clipped(values: Any) -> Any:
        most = ops.cast(bound, values.dtype)
        return ops.maximum(ops.minimum(values, most), -most)

    return map_values(clipped, gradient)


def without_autograd() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which PyTorch records no graph; nothing on other backends."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
