"""The groups of a config, with those of the auxiliary optimizers of Muon."""

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from optimization.configs.errors import Problem
from optimization.configs.group_config import ParamGroupConfig
from optimization.configs.matcher_config import MatcherConfig
from optimization.matching.rules import Rule
from optimization.rules.auxiliary import AuxiliaryConfig
from optimization.rules.muon import MuonConfig

if typing.TYPE_CHECKING:
    from optimization.configs.optimization_config import OptimizationConfig

NAME = "auxiliary"
"""The name of the group of the auxiliary optimizer of all."""


class AuxiliaryGroup(Rule):
    """What the auxiliary optimizer of a Muon updates, of a group or of all.

    It is read as a `ParamGroupConfig` is. Of the settings it has those that the group has, and
    else those of the auxiliary optimizer.

    Args:
        muon: Which variables it is about: those that this one does not orthogonalize.
        base: The group of which they are; None for what no group matches.
    """

    freeze = False
    is_auxiliary = True
    also: Sequence[MatcherConfig]

    def __init__(self, muon: MuonConfig, base: ParamGroupConfig | None):
        auxiliary = typing.cast(AuxiliaryConfig, muon.auxiliary)
        self.muon, self.base, self.optimizer = muon, base, auxiliary
        self.also = auxiliary.also
        # What matches everything, where there is no group.
        self.match = "" if base is None else base.match
        self.layer_type = None if base is None else base.layer_type
        self.ndim = None if base is None else base.ndim
        self.name = NAME if base is None else f"{base.label}/{NAME}"
        has_own = base is not None and base.learning_rate.type is not None
        place: Any = base if has_own else auxiliary
        self.learning_rate, self.warmup = place.learning_rate, place.warmup
        factors = [auxiliary.learning_rate_multiplier] if not has_own else []
        factors += [base.learning_rate_multiplier] if base is not None else []
        self.learning_rate_multiplier = factors[0] * (factors[1] if factors[1:] else 1.0)
        self.weight_decay = None if base is None else base.weight_decay

    def left(self, shapes: Mapping[str, Sequence[int]]) -> set[str]:
        """Returns the paths that Muon leaves, of those of all variables with their shapes."""
        return self.muon.left(shapes)

    @property
    def freeze_steps(self) -> Any:
        """The steps for which the group is frozen, and its auxiliary optimizer with it."""
        return 0 if self.base is None else self.base.freeze_steps

    def own_clip(self) -> tuple[str, float] | None:
        """Returns the clip of the group, one of each variable: `conflicts` refuses another."""
        return None if self.base is None else self.base.own_clip()

    def _problem(self, code: str, name: str, message: str) -> Problem:
        return self.optimizer._problem(code, name, message)


Group = ParamGroupConfig | AuxiliaryGroup
"""What some of the variables have of their own."""


def groups_of(config: "OptimizationConfig") -> list[Group]:
    """Returns the groups of a config, the first that matches counts, with those of auxiliaries.

    That of a group comes before it: what the auxiliary optimizer leaves is Muon's.
    """
    found: list[Group] = []
    for group in (*config.param_groups, None):
        of_group = group is not None and group.optimizer.type is not None
        section = (
            group.optimizer.get() if group is not None and of_group else config.optimizer.get()
        )
        if _has_auxiliary(section) and not (group is not None and group.freeze):
            found.append(AuxiliaryGroup(section, group))
        if group is not None:
            found.append(group)
    return found


def own_auxiliaries(config: "OptimizationConfig") -> list[AuxiliaryGroup]:
    """Returns a group for each auxiliary optimizer: each once, also where several groups have it.

    A frozen group's, and that of a type that is not selected, are none.
    """
    found = [group for group in groups_of(config) if isinstance(group, AuxiliaryGroup)]
    return list({id(group.optimizer): group for group in found}.values())


def all_groups(config: "OptimizationConfig") -> list[Group]:
    """Returns the groups of a config, and after them those of auxiliary optimizers."""
    return [*config.param_groups, *own_auxiliaries(config)]


def _has_auxiliary(section: Any) -> bool:
    auxiliary = section.auxiliary if isinstance(section, MuonConfig) else None
    return auxiliary is not None and auxiliary.type is not None
