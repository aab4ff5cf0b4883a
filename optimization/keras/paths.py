"""The paths of a model's variables, kept the same through saving and loading.

Keras derives a path from the scopes that were open when the variable was made, and a loaded model
makes its variables in fewer of them: `model/encoder/dense/kernel` comes back as `dense/kernel`, and
two encoders come back with the same paths. So paths are stored with the optimizer, and used again.

Keras also numbers layers without a name through a whole process: a model that is built a second
time has `sequential_1/dense_2/kernel` for `sequential/dense/kernel`. What was saved under the one
belongs to the other; see `saved_names`.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from optimization.matching.patterns import check_matches

_REPEATED = re.compile(r"#\d+$")

Stems = tuple[str, ...]


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


def saved_names(
    names: Collection[str], saved: Collection[str], paths: Iterable[str]
) -> dict[str, str]:
    """Returns for each name of a variable the name that it was saved under.

    Paths that differ in automatic numbers only are matched in the order of these numbers, if there
    are as many of each kind. A layer is matched as a whole: where its variables would be taken from
    two layers, or two layers from one, all names stand for themselves. `paths` are those of the
    model's variables, with which some of the names end: `optimizer/momentums/dense_2/kernel`.
    """
    if set(names) == set(saved):
        return {name: name for name in names}
    known = {_REPEATED.sub("", path) for path in paths}
    split = {name: _split(name, known) for name in names}
    starts = {start for start, path, _ in split.values() if path}
    stems = {_stems(path) for path in known}
    saved_paths = {path for name in saved for path in _paths_in(name, starts, stems)}
    partners = _partners({path for _, path, _ in split.values() if path}, saved_paths)
    return {
        name: f"{start}{partners.get(path, path)}{end}"
        for name, (start, path, end) in split.items()
    }


def _split(name: str, paths: Collection[str]) -> tuple[str, str, str]:
    """Returns what is before the longest path with which a name ends, that path, and its "#2"."""
    bare = _REPEATED.sub("", name)
    parts = bare.split("/")
    for first in range(len(parts)):
        path = "/".join(parts[first:])
        if path in paths:
            return bare[: len(bare) - len(path)], path, name[len(bare) :]
    return name, "", ""


def _paths_in(name: str, starts: Iterable[str], stems: Collection[Stems]) -> list[str]:
    """Returns the path in a saved name: what follows a known start and is like a known path."""
    bare = _REPEATED.sub("", name)
    found = [bare.removeprefix(start) for start in starts if bare.startswith(start)]
    return [path for path in found if _stems(path) in stems]


def _partners(paths: Collection[str], saved: Collection[str]) -> dict[str, str]:
    theirs = _by_stems(saved)
    partners = {
        path: partner
        for stems, ours in _by_stems(paths).items()
        if len(ours) == len(theirs[stems])
        for path, partner in zip(ours, theirs[stems], strict=True)
    }
    pairs = {pair for items in partners.items() for pair in _levels(*items)}
    one_to_one = all(len({pair[side] for pair in pairs}) == len(pairs) for side in (0, 1))
    return partners if one_to_one else {}


def _levels(path: str, partner: str) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Yields each layer that a variable is in, and the variable, with its partner."""
    parts = [path.split("/"), partner.split("/")]
    for depth in range(1, len(parts[0]) + 1):
        yield tuple(tuple(part[:depth]) for part in parts)


def _by_stems(paths: Collection[str]) -> dict[Stems, list[str]]:
    groups: dict[Stems, list[str]] = defaultdict(list)
    for path in sorted(paths, key=_numbers):
        groups[_stems(path)].append(path)
    return groups


def _stems(path: str) -> Stems:
    return tuple(_numbered(part)[0] for part in path.split("/"))


def _numbers(path: str) -> list[int]:
    return [_numbered(part)[1] for part in path.split("/")]


def _numbered(part: str) -> tuple[str, int]:
    """Returns a part of a path without the number at its end, and the number; -1 for none."""
    stem, separator, number = part.rpartition("_")
    return (stem, int(number)) if separator and number.isdecimal() else (part, -1)
