"""Choosing variables by regular expressions searched in their full path."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from optimization.matching.patterns import as_pattern_list, check_matches, matches_any

__all__ = ["Among", "as_pattern_list", "matches_any"]


@dataclasses.dataclass(frozen=True)
class Among:
    """All variables that a model trains, in which patterns must match.

    An optimizer of one group of variables may have patterns meant for all groups. What matches
    nothing is warned about once.

    Attributes:
        shapes: Their shapes, by path.
        reported: What has been warned about.
    """

    shapes: dict[str, tuple[int, ...]]
    reported: set[tuple[str, str]] = dataclasses.field(default_factory=set)

    @classmethod
    def of(cls, paths: Sequence[str], variables: Sequence[Any]) -> "Among":
        """Returns it for variables with these paths."""
        return cls({path: tuple(v.shape) for path, v in zip(paths, variables, strict=True)})

    def require(self, patterns: Sequence[str] | None, argument: str) -> None:
        """Raises a `ValueError`, or warns, as `check_matches` does for patterns of an argument."""
        check_matches(patterns, list(self.shapes), argument, self.reported)
