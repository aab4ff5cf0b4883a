"""The few shapes of which several schedules are made."""

import math
from collections.abc import Sequence

from optimization.schedules.base import Array, Namespace


def half_cosine(remaining: Array, xp: Namespace) -> Array:
    """Falls from 1 to 0 along half a cosine as `remaining` falls from 1 to 0.

    This is (1 + cos(pi (1 - remaining))) / 2 in a form that loses no digits near the end, where
    float32 would subtract two numbers that are almost equal.
    """
    root = xp.sin((0.5 * math.pi) * remaining)
    return root * root


def whole_and_rest(step: Array, period: float, xp: Namespace) -> tuple[Array, Array]:
    """Returns how many whole periods have passed, and the steps since the last of them.

    Both are exact up to 2**53 steps, also where XLA divides by multiplying with the
    reciprocal and the quotient falls on the wrong side of a whole number.
    """
    whole = xp.floor(step / period)
    rest = step - whole * period
    whole = xp.where(rest < 0, whole - 1.0, xp.where(rest < period, whole, whole + 1.0))
    return whole, step - whole * period


def waves(
    done: Array, length: float, num_cycles: float, xp: Namespace, ahead: float = 0.0
) -> Array:
    """Returns (1 + cos(2 pi num_cycles (done + ahead) / length)) / 2.

    It is as exact late as it is early where a wave is a whole number of steps, as half a wave over
    the training is. Otherwise float32 loses digits in proportion to the waves gone by.
    """
    if num_cycles == 0:
        return xp.full_like(done, 1.0)
    period = length / num_cycles
    _, rest = whole_and_rest(done, period, xp)
    # `ahead` is added here since float32 has no 2**24 + 1.
    return half_cosine((period - 2.0 * (rest + ahead)) / period, xp)


def lookup(
    step: Array,
    boundaries: Sequence[float],
    tables: Sequence[Sequence[float]],
    side: str,
    xp: Namespace,
) -> list[Array]:
    """Returns, for each of `tables`, its entry for the interval that `step` is in.

    They hold one entry more than `boundaries`, which increase and belong to the interval before
    them if `side` is "left", else to the one after.
    """
    if not boundaries:
        return [xp.full_like(step, table[0]) for table in tables]
    dtype = getattr(step, "dtype", None)  # a Python float has none
    edges = xp.array(boundaries, dtype=dtype)
    # TensorFlow searches in vectors only.
    index = xp.searchsorted(edges, xp.ravel(step), side=side)
    index = xp.reshape(index, xp.shape(step))
    return [xp.take(xp.array(table, dtype=dtype), index) for table in tables]
