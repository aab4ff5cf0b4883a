"""Choosing parameters by regular expressions searched in their full name."""

import difflib
import re
from collections.abc import Sequence

from optimization.configs.errors import Problem, warn
from optimization.configs.expressions import compiled, search

_GROUP_FLAGS = re.compile(r"\(\?[a-zA-Z-]*:")  # "(?:" and the like, whose colon is no colon
_OUTPUT = re.compile(r":\d+$")


def as_pattern_list(patterns: str | Sequence[str] | None, argument: str) -> list[str] | None:
    """Returns the patterns of the argument `argument` as a list, if each is a right one.

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
            compiled(pattern)
        except ValueError as error:
            message = f"Argument `{argument}` must hold valid regular expressions"
            raise ValueError(f"{message}: {error}") from None
    return listed


def find(pattern: str, name: str) -> re.Match[str] | None:
    """Searches a pattern in a name, or in `name:0` if the pattern has a colon.

    TensorFlow called a variable `dense/kernel:0`, and expressions that end in `:0$` were written
    for that. A pattern without a colon never sees the `:0`, which would be a number to it.
    """
    if ":" not in _GROUP_FLAGS.sub("(", pattern):
        return search(pattern, name)
    as_tensor = name if _OUTPUT.search(name) else f"{name}:0"
    found = search(pattern, as_tensor)
    # What a pattern forbids in `name:0` is always absent from the name alone.
    if found or "(?!" in pattern or "(?<!" in pattern:
        return found
    return search(pattern, name)


def matches_any(name: str, patterns: Sequence[str] | None) -> bool:
    """Says whether one of the patterns is found in `name`, as `find` does."""
    return any(find(pattern, name) for pattern in patterns or ())


def check_matches(
    patterns: Sequence[str] | None,
    names: Sequence[str],
    argument: str,
    reported: set[tuple[str, str]] | None = None,
) -> None:
    """Raises if no pattern of a list is found in any name: the list would do nothing, silently.

    Lists are written for many models. So a pattern that is found in no name, beside one that is,
    is a `ConfigWarning`, one for all of the list, unless it and `argument` are in `reported`, which
    grows.

    Raises:
        ValueError: Naming each pattern and the names nearest to it.
    """
    patterns = patterns or ()
    idle = [p for p in patterns if not any(find(p, name) for name in names)]
    if idle and len(idle) == len(patterns):
        raise ValueError(
            f"Argument `{argument}` has only patterns that match no trainable variable: "
            f"{_described(idle, names)}"
        )
    reported = set() if reported is None else reported
    idle = [pattern for pattern in idle if (argument, pattern) not in reported]
    reported.update((argument, pattern) for pattern in idle)
    if idle:
        advice = "correct it, or leave it out"
        message = f"matches no trainable variable with {_described(idle, names)}: {advice}"
        warn(Problem("unmatched", argument, message))


def _described(patterns: Sequence[str], names: Sequence[str]) -> str:
    return "; ".join(f"{p!r} (nearest: {nearest(p, names)})" for p in patterns)


def nearest(pattern: str, paths: Sequence[str]) -> str:
    """Returns the paths most like a pattern, for an error."""

    # A pattern names a part of a path as often as a whole one, so both are compared.
    def likeness(path: str) -> float:
        parts = [path, *re.split(r"[/.]", path)]
        return max(difflib.SequenceMatcher(None, pattern.lower(), p.lower()).ratio() for p in parts)

    ranked = sorted(paths, key=likeness, reverse=True)
    return ", ".join(repr(path) for path in ranked[:3])
