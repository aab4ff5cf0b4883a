"""Choosing variables by regular expressions searched in their full path."""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

from optimization.matching.patterns import as_pattern_list, matches_any, nearest, unmatched
from optimization.optimizers.paths import path_of

__all__ = ["as_pattern_list", "matches_any", "matching_among", "nearest", "require_matches"]

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
    described = unmatched(patterns, paths)
    if described:
        raise ValueError(
            f"Argument `{argument}` has patterns that match no trainable variable: {described}"
        )
