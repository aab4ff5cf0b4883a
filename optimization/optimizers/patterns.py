"""Choosing variables by regular expressions searched in their full path."""

import contextlib
import contextvars
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from optimization.optimizers.paths import path_of

_NEAREST_SHOWN = 3
_all_paths: contextvars.ContextVar[Sequence[str] | None] = contextvars.ContextVar(
    "all_paths", default=None
)


@contextlib.contextmanager
def matching_among(paths: Sequence[str]) -> Iterator[None]:
    """Has patterns match if they are found in any of these paths, inside a `with` block.

    An optimizer of one group of variables may have patterns meant for all groups.
    """
    token = _all_paths.set(paths)
    try:
        yield
    finally:
        _all_paths.reset(token)


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


def require_matches(
    patterns: Sequence[str] | None, variables: Sequence[Any], argument: str
) -> None:
    """Raises if a pattern is found in no variable's path: it would do nothing, silently.

    Args:
        patterns: Regular expressions, or None.
        variables: The variables the optimizer is built with.
        argument: Name of the constructor argument, for the error.

    Raises:
        ValueError: Naming each such pattern and the paths nearest to it.
    """
    paths = _all_paths.get() or [path_of(variable) for variable in variables]
    unmatched = [p for p in patterns or () if not any(re.search(p, path) for path in paths)]
    if unmatched:
        described = "; ".join(f"{p!r} (nearest: {nearest(p, paths)})" for p in unmatched)
        raise ValueError(
            f"Argument `{argument}` has patterns that match no trainable variable: {described}"
        )


def nearest(pattern: str, paths: Sequence[str]) -> str:
    """Returns the paths most like a pattern, for an error."""

    # A pattern names a part of a path as often as a whole one, so both are compared.
    def likeness(path: str) -> float:
        parts = [path, *path.split("/")]
        return max(
            difflib.SequenceMatcher(None, pattern.lower(), part.lower()).ratio() for part in parts
        )

    ranked = sorted(paths, key=likeness, reverse=True)
    return ", ".join(repr(path) for path in ranked[:_NEAREST_SHOWN])
