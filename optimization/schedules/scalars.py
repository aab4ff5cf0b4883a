"""The array namespace of formulas for one step, a Python float: what checks need, without NumPy.

NumPy takes a third of the time in which a config is imported, read and checked.
"""

import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

maximum, minimum, floor, sin, take = max, min, math.floor, math.sin, operator.getitem


def where(condition: bool, yes: float, no: float) -> float:
    return yes if condition else no


def clip(x: float, least: float, most: float) -> float:
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
    return math.sqrt(x) if x >= 0 else math.nan


def full_like(x: float, value: float) -> float:
    return value


def array(values: Sequence[float], dtype: Any = None) -> Sequence[float]:
    return values


def searchsorted(edges: Sequence[float], x: float, side: str) -> int:
    return (bisect_left if side == "left" else bisect_right)(edges, x)


def shape(x: float) -> tuple[int, ...]:
    return ()


def ravel(x: float) -> float:
    return x


def reshape(x: float, shape: tuple[int, ...]) -> float:
    return x
