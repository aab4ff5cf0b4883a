"""What each variable of a model is trained with, as data; `optimization.matching` has the text."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from optimization.keras.groups import ParamGroup
from optimization.keras.inner import is_decayed
from optimization.keras.members import Member, Members
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.matching.group_table import GroupRow
from optimization.matching.group_table import format_group_table as format_group_table
from optimization.matching.rules import DEFAULT
from optimization.schedules.keras_schedules import ConfiguredSchedule, curve_of, is_formula
from optimization.schedules.scaled import ScaledLearningRate
from optimization.schedules.steps import telling_steps


def highest_rates(members: Members) -> dict[str, float | None]:
    """Returns the highest rate of each member that follows a schedule, multiplied, by its name."""
    rates = {m.name: (m.multiplier, members.rate_of(m.group)) for m in members.members}
    peaks = {id(rate): _highest(rate) for _, rate in rates.values() if callable(rate)}
    return {
        name: None if (peak := peaks[id(rate)]) is None else multiplier * peak
        for name, (multiplier, rate) in rates.items()
        if id(rate) in peaks
    }


def _highest(rate: Any) -> float | None:
    is_own = isinstance(rate, ConfiguredSchedule | ScaledLearningRate)
    if not is_own and not type(rate).__module__.startswith("keras."):
        return None
    # One call for each step is slow, and is what all but the formulas need.
    steps = telling_steps(rate.get_config(), dense=is_formula(rate))
    return float(np.max(curve_of(rate, steps)))


def table_row(
    path: str,
    group: ParamGroup | None,
    member: Member | None,
    variable: Any,
    averaged: bool,
    highest: Mapping[str, float | None],
) -> GroupRow:
    """Returns the row of a variable of a member, None if it is frozen; see `highest_rates`."""
    rate = 0.0 if member is None else float(ops.convert_to_numpy(member.learning_rate))
    return GroupRow(
        path=path,
        group=group.label if group else DEFAULT,
        rule=group.matcher if group else "",
        optimizer="" if member is None else type(member.optimizer).__name__,
        multiplier=0.0 if member is None else member.multiplier,
        learning_rate=rate,
        highest_rate=rate if member is None else highest.get(member.name, rate),
        decayed=member is not None and is_decayed(member.optimizer, variable),
        frozen=member is None,
        averaged=averaged,
        orthogonalized=_is_orthogonalized(member, variable),
        parameters=math.prod(variable.shape),
        freeze_steps=group.freeze_steps if group else 0,
    )


def _is_orthogonalized(member: Member | None, variable: Any) -> bool | None:
    optimizer = None if member is None else member.optimizer
    if isinstance(optimizer, RuleOptimizer):
        return optimizer.part_of(variable).own_of(variable).get("orthogonalized")
    if isinstance(optimizer, keras.optimizers.Muon):
        return not optimizer._should_use_adamw(variable)
    return None
