"""Choosing variables by regular expressions searched in their full path."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from optimization.keras.paths import path_of
from optimization.matching.patterns import as_pattern_list, check_matches, matches_any

__all__ = ["all_shapes", "as_pattern_list", "matches_any", "matching_among", "require_matches"]


@dataclasses.dataclass(frozen=True)
class _All:
    shapes: dict[str, tuple[int, ...]]
    reported: set[tuple[str, str]] = dataclasses.field(default_factory=set)


_all: contextvars.ContextVar[_All | None] = contextvars.ContextVar("all", default=None)


@contextlib.contextmanager
def matching_among(paths: Sequence[str], variables: Sequence[Any]) -> Iterator[None]:
    """Has patterns match if they are found in any of these paths, inside a `with` block.

    An optimizer of one group of variables may have patterns meant for all groups. What matches
    nothing is warned about once.
    """
    token = _all.set(_All(_shapes(paths, variables)))
    try:
        yield
    finally:
        _all.reset(token)


def require_matches(
    patterns: Sequence[str] | None, variables: Sequence[Any], argument: str
) -> None:
    """Raises, or warns, as `check_matches` does.

    Args:
        patterns: Regular expressions, or None.
        variables: The variables the optimizer is built with.
        argument: Name of the constructor argument, for the message.

    Raises:
        ValueError: If none of the patterns is found in a variable's path.
    """
    among = _all.get() or _All(all_shapes(variables))
    check_matches(patterns, list(among.shapes), argument, among.reported)


def all_shapes(variables: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all variables by path, those of other groups than these included."""
    among = _all.get()
    if among is not None:
        return among.shapes
    return _shapes([path_of(variable) for variable in variables], variables)


def _shapes(paths: Sequence[str], variables: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    return {path: tuple(v.shape) for path, v in zip(paths, variables, strict=True)}
