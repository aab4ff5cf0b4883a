"""The steps at which to look at a curve: where it may bend, and some between."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def steps_around(marks: Iterable[int], last: int, parts: int) -> list[int]:
    """Returns the steps that tell what a curve does up to the step `last`, increasing.

    Those are `marks`, at which it may bend, with the ones before and after; and, unless `parts` is
    0, the ends of as many even parts, and powers of 2.

        >>> steps_around({0, 100}, last=200, parts=2)
        [0, 1, 2, 4, 8, 16, 32, 64, 99, 100, 101, 128, 200]
    """
    steps = {mark + side for mark in marks for side in (-1, 0, 1)}
    if parts:
        steps |= {last * part // parts for part in range(parts + 1)}
        steps |= {2**power for power in range(last.bit_length())}
    return sorted(step for step in steps if 0 <= step <= last)


def telling_steps(settings: Any, dense: bool = True) -> list[int]:
    """Returns steps among which a schedule has its highest rate, or nearly so.

    Any integer in `settings`, its arguments, may be a number of steps; `dense`: and many between.

        >>> telling_steps({"decay_steps": 100}, dense=False)
        [0, 1, 2, 99, 100, 101]
    """
    marks = {0, 1, *_integers(settings)}
    # A warmup may delay what a mark counts from.
    last = 2 * max(marks) if dense else max(marks) + 1
    return steps_around(marks, last, parts=2000 if dense else 0)


def _integers(value: Any) -> Iterator[int]:
    """Yields the integers in nested settings that may be steps."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, int) and 1 < value < 2**53:
        yield value
