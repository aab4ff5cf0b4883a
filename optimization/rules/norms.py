"""Norms of finite arrays that are finite, and not 0, whatever the size of the entries.

The square of 1.9e19 is infinite in float32, that of 1e-23 is 0. So where a sum of squares is not
between 1e-24 and infinity it is taken again, of the entries times a power of two. Otherwise the
arrays are read once.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

_LARGE, _SMALL = 2.0**100, 2.0**-100
_LEAST = 2.0**-80  # Less may have lost digits: squares are multiples of 1e-45, or 0 below 1e-38.


@dataclasses.dataclass(frozen=True)
class Norm:
    """A norm, root * unit, where float32 may hold the two and not their product.

    Attributes:
        root: A float32 array; the square of the norm is its square times that of the unit.
        unit: Powers of two of the same shape, 1 for ordinary norms.
        xp: The functions of these arrays: `keras.ops` or `jax.numpy`.
    """

    root: Any
    unit: Any
    xp: Any

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
        xp = self.xp
        divisor = xp.maximum(self.unit, 1.0)
        root = self.root * xp.minimum(self.unit, 1.0)
        exceeds = root > bound / divisor
        factor = xp.where(exceeds, bound / xp.where(exceeds, root, 1.0), divisor)
        return divisor, factor + (root - root)

    def limited(self, bound: float) -> "Norm":
        """Returns the norm of what is clipped by `bound`."""
        root = self.xp.minimum(self.value, bound) + (self.root - self.root)
        return Norm(root, self.xp.ones_like(root), self.xp)

    def __gt__(self, bound: Any) -> Any:
        return self.value > bound


def root_of_squares(
    squares: Callable[[Sequence[Any], Any], Any],
    arrays: Sequence[Any],
    xp: Any,
    either: Callable[..., Sequence[Any]],
    large_only: bool = False,
) -> Norm:
    """Returns the root of sums of squares.

    Args:
        squares: Returns the sums, in float32, of arrays times a factor that has the shape of the
            sums; None is 1.
        arrays: Its first argument.
        xp: The functions of these arrays: `keras.ops` or `jax.numpy`.
        either: Called with a predicate, two functions and a list of arrays, returns what the first
            of the functions returns of the arrays if the predicate holds, else the second.
        large_only: Whether norms below 1e-12 may be 0.
    """
    usual = squares(arrays, None)
    fine = xp.isfinite(usual)
    if not large_only:
        fine = xp.logical_and(fine, usual >= _LEAST)

    def as_they_are(usual: Any, fine: Any, *arrays: Any) -> tuple[Any, Any]:
        return xp.sqrt(usual), xp.ones_like(usual)

    def in_units(usual: Any, fine: Any, *arrays: Any) -> tuple[Any, Any]:
        ones = xp.ones_like(usual)
        small = usual < _LEAST
        factor = xp.where(fine, ones, xp.where(small, _LARGE * ones, _SMALL * ones))
        return xp.sqrt(squares(arrays, factor)), 1 / factor

    root, unit = either(xp.all(fine), as_they_are, in_units, [usual, fine, *arrays])
    return Norm(root, unit, xp)
