"""The paths of a model's variables, kept the same through saving and loading.

Keras derives a path from the scopes that were open when the variable was made, and a loaded model
makes its variables in fewer of them: `model/encoder/dense/kernel` comes back as `dense/kernel`, and
two encoders come back with the same paths. So paths are stored with the optimizer, and used again.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from optimization.matching.patterns import check_matches


def path_of(variable: Any) -> str:
    """Returns a variable's own path, or the name of a `tf.Variable`."""
    return getattr(variable, "path", None) or variable.name


def settled(variables: Sequence[Any], saved: Sequence[str] | None) -> list[str]:
    """Returns the variables' paths: the saved ones if these are the same variables.

    They are if each path is, position by position, the saved one or the end of it, by whole parts.
    Otherwise the optimizer has been given another model, and the present paths hold.
    """
    paths = [path_of(variable) for variable in variables]
    if saved is None or len(saved) != len(paths):
        return paths
    same = all(f"/{old}".endswith(f"/{new}") for old, new in zip(saved, paths, strict=True))
    return list(saved) if same else paths


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
