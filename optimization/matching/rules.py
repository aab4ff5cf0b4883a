"""Rules that say which parameters have settings of their own."""

from collections.abc import Sequence
from typing import TypeVar

from optimization.matching.patterns import find, nearest

DEFAULT = "default"
MATCHERS = ("match", "layer_type", "ndim")


class Rule:
    """One matcher of parameters: exactly one of `match`, `layer_type` and `ndim` is not None.

    A subclass is a dataclass that has these three and `name` as fields, and what the rule changes.
    """

    match: str | None
    layer_type: str | None
    ndim: Sequence[int] | None
    name: str | None

    @property
    def label(self) -> str:
        """The group's name, or what its matcher looks for."""
        ndim = None if self.ndim is None else f"ndim {', '.join(map(str, self.ndim))}"
        return self.name or self.match or self.layer_type or ndim or "all"

    @property
    def matcher(self) -> str:
        """The rule in words, such as `match='bias$'`."""
        name = next(name for name in MATCHERS if getattr(self, name) is not None)
        return f"{name}={getattr(self, name)!r}"

    def matches(self, path: str, ndim: int, layer_type: str | None) -> bool:
        """Says whether a variable is one that the rule means."""
        if self.match is not None:
            return find(self.match, path) is not None
        if self.layer_type is not None:
            return layer_type == self.layer_type
        return ndim in (self.ndim or ())


RuleT = TypeVar("RuleT", bound=Rule)


def assigned(
    groups: Sequence[RuleT],
    paths: Sequence[str],
    ndims: Sequence[int],
    layer_types: Sequence[str | None],
) -> list[RuleT | None]:
    """Returns the group of each variable, None for the default group.

    Raises:
        ValueError: For a group without variables; for a `layer_type` where layers are not known.
    """
    if any(group.layer_type for group in groups) and not any(layer_types):
        raise ValueError(
            "A parameter group with `layer_type` needs the model: call "
            "`optimizer.set_model(model)` before the first step."
        )
    places = list(zip(paths, ndims, layer_types, strict=True))
    owners = [next((g for g in groups if g.matches(*place)), None) for place in places]
    for group in groups:
        if not any(owner is group for owner in owners):
            raise ValueError(_why_empty(group, places, owners))
    return owners


def _why_empty(group: Rule, places: list, owners: list) -> str:
    taken = [
        f"{place[0]} (by {owner.label!r})"
        for place, owner in zip(places, owners, strict=True)
        if owner is not None and group.matches(*place)
    ]
    name = f" {group.name!r}" if group.name else ""
    start = f"The parameter group{name} ({group.matcher})"
    if taken:
        return f"{start} has no variable: earlier groups took all it matches: {', '.join(taken)}"
    if group.match is not None:
        known = f"nearest: {nearest(group.match, [path for path, _, _ in places])}"
    elif group.layer_type is not None:
        known = f"layer types: {', '.join(sorted({t for _, _, t in places if t}))}"
    else:
        known = f"ndim of the variables: {sorted({ndim for _, ndim, _ in places})}"
    return f"{start} matches no trainable variable ({known})"
