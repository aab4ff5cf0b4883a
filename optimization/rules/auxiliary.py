"""`AuxiliaryConfig`: the optimizer of what Muon does not orthogonalize."""

from collections.abc import Iterator
from typing import Any, ClassVar

from optimization.configs.branches import OptimizerBranches
from optimization.configs.errors import Problem
from optimization.configs.fields import Section, Sections, field
from optimization.configs.matcher_config import MatcherConfig
from optimization.configs.tree import FieldSpec
from optimization.configs.types import NonNegativeFloat
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.schedules.registry import LrConfig, WarmupConfig


class AuxiliaryConfig(OptimizerBranches):
    """Chooses the optimizer of what Muon does not orthogonalize, with its rate and its decay.

    It is chosen as `optimizer` is, and acts as that of a parameter group does: embeddings, output
    layers, biases, norms, and what `also` matches, are that group. A group of `param_groups` has it
    too for those of its variables, with the settings of the group.

    >>> AuxiliaryConfig(type="adamw", learning_rate_multiplier=0.015).get().weight_decay_rate
    0.0

    Attributes:
        type: The name of the selected branch.
        learning_rate_multiplier: Times the learning rate: that of its own, else Muon's, whose
            schedule and warmup it then follows.
        learning_rate: A learning rate of its own, which that of all does not scale; `type` None for
            that of all.
        warmup: The warmup of a learning rate of its own.
        also: Further variables that it updates, though Muon could: a list of matchers, as groups
            have them.
    """

    _OWN: ClassVar[tuple[str, ...]] = (
        *("type", "learning_rate_multiplier", "learning_rate", "warmup", "also"),
    )
    registry = OPTIMIZERS_CLS

    learning_rate_multiplier: NonNegativeFloat = 1.0
    learning_rate: Section[LrConfig] = field(default_factory=LrConfig)
    warmup: Section[WarmupConfig] = field(default_factory=WarmupConfig)
    also: Sections[MatcherConfig] = field(default=())

    @classmethod
    def branches(cls) -> list[str]:
        return [name for name in super().branches() if not _has_auxiliary(name)]

    @classmethod
    def _find_spec(cls, name: str) -> FieldSpec | None:
        return None if _has_auxiliary(name) else super()._find_spec(name)

    def _check_field(self, name: str, value: Any) -> list[Problem]:
        if name == "type" and _has_auxiliary(value):
            message = f"can't be `{value}`: it is for what no Muon orthogonalizes"
            return [Problem("value", self._join("type"), message)]
        return super()._check_field(name, value)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.type is None and not self.untyped_branches():
            types = ", ".join(self.branches())
            yield "type", f"a type is required, none was given; the types are {types}"
        if self.warmup.type is not None and self.learning_rate.type is None:
            yield "warmup", "needs a `learning_rate` of its own"

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings, also of what belongs to the whole step."""
        problems, doubts = super().problems()
        section = self.get()
        changed = () if section is None else {name for name, _ in section._changed()}
        for name in () if section is None else section.pipeline_fields():
            if name in changed:
                message = "belongs to the whole step: set it on the optimizer of all"
                problems.append(section._problem("conflict", name, message))
        return problems, doubts


def _has_auxiliary(name: Any) -> bool:
    """Says whether a type has an auxiliary optimizer itself."""
    known = isinstance(name, str) and name in OPTIMIZERS_CLS
    return known and hasattr(OPTIMIZERS_CLS.config_class(name), "auxiliary")
