"""The array namespace of formulas for one step, a Python float: what checks need, without NumPy.

NumPy takes a third of the time in which a config is imported, read and checked.
"""

import bisect
import math
import operator
from types import SimpleNamespace
from typing import Any


def power(base: float, exponent: float) -> float:
    """Returns the power, infinite where it is too large, NaN where there is none, as NumPy does."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan


SCALARS: Any = SimpleNamespace(
    **{"float64": float, "maximum": max, "minimum": min, "floor": math.floor, "sin": math.sin},
    power=power,
    sqrt=lambda x: math.sqrt(x) if x >= 0 else math.nan,
    exp=math.exp,
    log=math.log,
    expm1=math.expm1,
    where=lambda condition, yes, no: yes if condition else no,
    clip=lambda x, least, most: min(max(x, least), most),
    full_like=lambda x, value: value,
    array=lambda values, dtype=None: values,
    searchsorted=lambda edges, x, side: getattr(bisect, f"bisect_{side}")(edges, x),
    take=operator.getitem,
    shape=lambda x: (),
    ravel=lambda x: x,
    reshape=lambda x, shape: x,
)
