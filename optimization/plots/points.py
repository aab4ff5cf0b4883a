"""The steps at which a curve is drawn, so that straight lines between them are the curve."""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

Function = Callable[[list[int]], list[float]]
"""A curve: the values at a list of steps."""

GRID = 1000  # even parts of every picture
_MOST = 5000  # further steps, of one curve
_PROBES = (0.382, 0.5, 0.724)  # of the steps between two
_NEAR = 1e-3  # of the height of a curve, by which a straight line may miss it


def even_steps(first: int, last: int) -> set[int]:
    """Returns the steps that divide a range evenly: all of them in a short one.

    >>> sorted(even_steps(5, 8))
    [5, 6, 7, 8]
    """
    return {first + (last - first) * part // GRID for part in range(GRID + 1)}


def telling_points(
    function: Function, steps: Iterable[int], log: bool = False
) -> tuple[list[int], bool]:
    """Adds steps to `steps` until straight lines between them show what the curve does.

    A jump is found down to the two steps at which it is, so that it is drawn upright.

    >>> jump = lambda steps: [float(step > 70_001) for step in steps]
    >>> [step for step in telling_points(jump, {0, 100_000})[0] if 70_001 <= step <= 70_003]
    [70001, 70002]

    Args:
        function: The curve.
        steps: Where to begin, the first and the last step among them.
        log: Whether heights are compared on a logarithmic axis.

    Returns:
        The steps, increasing, and whether they are enough: a curve of thousands of waves has more.
    """
    first = sorted(set(steps))
    values = dict(zip(first, function(first), strict=True))
    pairs, most = _open(first), len(first) + _MOST
    while pairs:
        inside = {pair: _between(*pair) for pair in pairs}
        probes = [step for found in inside.values() for step in found]
        probed = values | dict(zip(probes, function(probes), strict=True))
        near = _NEAR * _height(probed.values(), log)
        bent = [
            sorted({*pair, *found})
            for pair, found in inside.items()
            if any(_miss(probed, pair, probe, log) > near for probe in found)
        ]
        if len(values) + sum(len(parts) - 2 for parts in bent) > most:
            return sorted(values), False
        values.update((step, probed[step]) for parts in bent for step in parts)
        pairs = [pair for parts in bent for pair in _open(parts)]
    return sorted(values), True


def _open(steps: list[int]) -> list[tuple[int, int]]:
    """Returns the pairs of neighbors that have steps between them."""
    return [pair for pair in pairwise(steps) if pair[1] - pair[0] > 1]


def _between(first: int, last: int) -> list[int]:
    # The very next one too: then no period falls on them all.
    inside = {first + 1, *(first + round((last - first) * part) for part in _PROBES)}
    return sorted(inside - {first, last})


def _miss(values: dict[int, float], pair: tuple[int, int], step: int, log: bool) -> float:
    """Returns by how much the straight line of a pair of steps misses the curve between them."""
    first, last = pair
    start, end, value = (_placed(values[s], log) for s in (first, last, step))
    missed = abs(value - (start + (end - start) * (step - first) / (last - first)))
    return missed if math.isfinite(missed) else 0.0


def _height(values: Iterable[float], log: bool) -> float:
    placed = [p for value in values if math.isfinite(p := _placed(value, log))]
    return max(placed) - min(placed) if placed else 0.0


def _placed(value: float, log: bool) -> float:
    if not log:
        return value
    return math.log10(value) if value > 0 else math.nan
