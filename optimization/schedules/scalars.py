"""The array namespace of formulas for one step, a Python float: what checks need, without NumPy.

NumPy takes a third of the time in which a config is imported, read and checked.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import floor, sin
from typing import Any

__all__ = [
    "array",
    "clip",
    "floor",
    "full_like",
    "maximum",
    "minimum",
    "ones_like",
    "power",
    "ravel",
    "reshape",
    "searchsorted",
    "shape",
    "sin",
    "sqrt",
    "take",
    "where",
    "zeros_like",
]

maximum, minimum = max, min


def where(condition: bool, yes: float, no: float) -> float:
    """Returns `yes` or `no`."""
    return yes if condition else no


def clip(x: float, least: float, most: float) -> float:
    """Returns the number of [least, most] that is nearest to `x`."""
    return min(max(x, least), most)


def power(base: float, exponent: float) -> float:
    """Returns the power, infinite where it is too large, NaN where there is none, as NumPy does."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan


def sqrt(x: float) -> float:
    """Returns the square root."""
    return math.sqrt(x) if x >= 0 else math.nan


def full_like(x: float, value: float) -> float:
    """Returns `value`."""
    return value


def ones_like(x: float) -> float:
    """Returns 1."""
    return 1.0


def zeros_like(x: float) -> float:
    """Returns 0."""
    return 0.0


def array(values: Sequence[float], dtype: Any = None) -> Sequence[float]:
    """Returns `values`."""
    return values


def searchsorted(edges: Sequence[float], x: float, side: str) -> int:
    """Returns how many of `edges` are below `x`; with the side "right", not above it."""
    return (bisect_left if side == "left" else bisect_right)(edges, x)


def take(values: Sequence[float], index: int) -> float:
    """Returns one of `values`."""
    return values[index]


def shape(x: float) -> tuple[int, ...]:
    """Returns the shape of a number."""
    return ()


def ravel(x: float) -> float:
    """Returns `x`."""
    return x


def reshape(x: float, shape: tuple[int, ...]) -> float:
    """Returns `x`."""
    return x
