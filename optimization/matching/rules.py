"""Rules that say which parameters have settings of their own."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

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
    # Whether it means only what an optimizer beside it leaves, and what `also` matches.
    is_auxiliary: bool = False
    also: Sequence[Any] = ()

    @property
    def label(self) -> str:
        """The group's name, or what its matcher looks for."""
        ndim = None if self.ndim is None else f"ndim {', '.join(map(str, self.ndim))}"
        return self.name or self.match or self.layer_type or ndim or "all"

    @property
    def matcher(self) -> str:
        """The rule in words, such as `match='bias$'`."""
        name = next(name for name in MATCHERS if getattr(self, name) is not None)
        text = "" if self.is_auxiliary and not self.match else f"{name}={getattr(self, name)!r}"
        return ", ".join(filter(None, [text, "not orthogonalized" if self.is_auxiliary else ""]))

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
    left: Callable[[Any], Collection[str]] = lambda group: (),
) -> list[RuleT | None]:
    """Returns the group of each variable, None for the default group.

    Args:
        groups: The groups, of which the first that matches counts.
        paths: The paths of all variables.
        ndims: How many dimensions each has.
        layer_types: The class of the layer of each; None where it is not known.
        left: Returns the paths that are left to a group that `is_auxiliary`.

    Raises:
        ValueError: For a group without variables; for a `layer_type` where layers are not known.
    """
    asked = any(g.layer_type or any(m.layer_type for m in g.also) for g in groups)
    if asked and not any(layer_types):
        raise ValueError(
            "A parameter group with `layer_type` needs the model: call "
            "`optimizer.set_model(model)` before the first step."
        )
    places = list(zip(paths, ndims, layer_types, strict=True))
    found = {id(group): left(group) for group in groups if group.is_auxiliary}

    def is_of(group: RuleT, place: tuple[str, int, str | None]) -> bool:
        is_left = not group.is_auxiliary or place[0] in found[id(group)]
        return group.matches(*place) and (is_left or any(m.matches(*place) for m in group.also))

    owners = [next((g for g in groups if is_of(g, place)), None) for place in places]
    having = {id(owner) for owner in owners}
    for group, before in zip(groups, [None, *groups], strict=False):
        # What is auxiliary may have nothing, or all of the group that comes next.
        shared = before is not None and before.is_auxiliary and _are_alike(before, group)
        if not (group.is_auxiliary or id(group) in having or (shared and id(before) in having)):
            raise ValueError(_why_empty(group, places, owners))
        for matcher in group.also:
            if not any(matcher.matches(*place) for place in places):
                raise ValueError(_why_empty(matcher, places, [None] * len(places)))
    return owners


def _are_alike(first: Rule, second: Rule) -> bool:
    return all(getattr(first, name) == getattr(second, name) for name in MATCHERS)


def refuse_all_frozen(owners: Sequence[Any]) -> None:
    """Raises a `ValueError` if all groups are frozen at first: no update would be taken, or count.

    Args:
        owners: The group of each variable, which says `freeze` and `freeze_steps`; None for the
            default group.
    """
    waiting = any(owner and owner.freeze_steps for owner in owners)
    if waiting and all(owner and (owner.freeze or owner.freeze_steps) for owner in owners):
        raise ValueError(
            "Every variable is frozen at first by a parameter group: no update would be taken. "
            "Leave out `freeze_steps` of one group."
        )


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
