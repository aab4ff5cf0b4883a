"""Choosing parameters by regular expressions searched in their full name."""

import difflib
import re
from collections.abc import Sequence

_NEAREST_SHOWN = 3


def as_pattern_list(patterns: str | Sequence[str] | None, argument: str) -> list[str] | None:
    """Checks patterns where the user wrote them and returns them as a list.

    Args:
        patterns: One regular expression, several, or None.
        argument: Name of the constructor argument, for the error.

    Returns:
        A list of strings, or None if `patterns` is None. An empty list stays an empty list.

    Raises:
        ValueError: If something is not a string or not a valid regular expression.
    """
    if patterns is None:
        return None
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in listed:
        if not isinstance(pattern, str):
            raise ValueError(
                f"Argument `{argument}` must be a list of regular expressions (strings), "
                f"received: {argument}={patterns!r}"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"Argument `{argument}` must hold valid regular expressions, "
                f"received: {pattern!r} ({error})"
            ) from error
    return listed


def matches_any(path: str, patterns: Sequence[str] | None) -> bool:
    """Says whether one of the patterns is found (`re.search`) in `path`."""
    return any(re.search(pattern, path) for pattern in patterns or ())


def unmatched(patterns: Sequence[str] | None, names: Sequence[str]) -> str:
    """Returns the patterns that are found in no name, with the nearest ones, for an error."""
    alone = [p for p in patterns or () if not any(re.search(p, name) for name in names)]
    return "; ".join(f"{p!r} (nearest: {nearest(p, names)})" for p in alone)


def nearest(pattern: str, paths: Sequence[str]) -> str:
    """Returns the paths most like a pattern, for an error."""

    # A pattern names a part of a path as often as a whole one, so both are compared.
    def likeness(path: str) -> float:
        parts = [path, *re.split(r"[/.]", path)]
        return max(
            difflib.SequenceMatcher(None, pattern.lower(), part.lower()).ratio() for part in parts
        )

    ranked = sorted(paths, key=likeness, reverse=True)
    return ", ".join(repr(path) for path in ranked[:_NEAREST_SHOWN])
