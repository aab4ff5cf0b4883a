"""The highest rate that a schedule gets to, which says more than that of step 0."""

import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

if typing.TYPE_CHECKING:
    import numpy as np

_POINTS = 2001


def telling_steps(settings: Mapping[str, Any], dense: bool = True) -> "np.ndarray":
    """Returns steps among which a schedule has its highest rate, or nearly so.

    These are the numbers of steps in its settings, the steps beside them, and points between.

    Args:
        settings: The schedule's arguments, nested.
        dense: Whether there are many points between.
    """
    import numpy as np

    marks = sorted({0, 1, *_integers(settings)})
    beside = [mark + shift for mark in marks for shift in (-1, 0, 1) if mark + shift >= 0]
    # A warmup may delay what a mark counts from.
    between = np.linspace(0, 2 * marks[-1], _POINTS).round() if dense else []
    return np.unique(np.concatenate([beside, between]))


def _integers(value: Any) -> Iterator[int]:
    """Yields the integers in nested settings that may be steps."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _integers(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, int) and 1 < value < 2**53:
        yield value
