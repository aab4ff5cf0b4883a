"""What each variable of a model is trained with, as data and as text."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from optimization.keras.groups import ParamGroup
from optimization.keras.inner import is_decayed
from optimization.keras.members import Member, Members
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.matching.rules import DEFAULT
from optimization.schedules.keras_schedules import ConfiguredSchedule, curve_of, is_formula
from optimization.schedules.scaled import ScaledLearningRate
from optimization.schedules.steps import telling_steps


@dataclasses.dataclass(frozen=True)
class GroupRow:
    """What one variable is trained with.

    >>> optimizer = optimization.optimizers.PipelineOptimizer(keras.optimizers.SGD(0.5))
    >>> optimizer.build([keras.Variable([1.0, 2.0], name="weight")])
    >>> optimizer.group_table()[0].learning_rate
    0.5

    Attributes:
        path: The variable's path.
        group: Name of its group, "default" if no rule matches it.
        rule: The rule's matcher in words, such as `match='bias$'`; empty for the default group.
        optimizer: Class of the optimizer that updates it; empty if it is frozen.
        multiplier: Factor on the learning rate, with that of the layer.
        learning_rate: The learning rate now, multiplied; 0 if it is frozen.
        highest_rate: The highest that its schedule gets to, multiplied; the rate now where that
            is a constant; None where it is not known, of a schedule that is not this package's or
            Keras'.
        decayed: Whether weight decay acts on it.
        frozen: Whether it stays as it is.
        averaged: Whether it has an average.
        orthogonalized: Whether its updates are, where the optimizer is a Muon; else None.
        parameters: How many numbers it holds.
    """

    path: str
    group: str
    rule: str
    optimizer: str
    multiplier: float
    learning_rate: float
    highest_rate: float | None
    decayed: bool
    frozen: bool
    averaged: bool
    orthogonalized: bool | None
    parameters: int

    @property
    def rate_text(self) -> str:
        """The learning rate: `0.1` for a constant, `0 now, up to 0.1` for a schedule."""
        now = f"{self.learning_rate:.4g}"
        if self.highest_rate is None:
            return f"{now} now"
        highest = f"{self.highest_rate:.4g}"
        return now if now == highest else f"{now} now, up to {highest}"

    @property
    def marks(self) -> str:
        """What holds of it, in words."""
        marks = ("decayed", "frozen", "averaged")
        held = [mark for mark in marks if getattr(self, mark)]
        if self.orthogonalized is not None:
            held.append("orthogonalized" if self.orthogonalized else "by AdamW")
        return ", ".join(held)


def format_group_table(rows: Sequence[GroupRow], variables: bool = False) -> str:
    """Returns a table with a line for each group, and multiplier, and setting.

    >>> optimizer = optimization.optimizers.PipelineOptimizer(keras.optimizers.SGD(0.5))
    >>> optimizer.build([keras.Variable([1.0, 2.0], name="weight")])
    >>> print(format_group_table(optimizer.group_table()))
    variable    group    optimizer  multiplier  learning rate    parameters
    1 variable  default  SGD        1           0.5              2

    Args:
        rows: What `PipelineOptimizer.group_table()` returns.
        variables: Whether each variable has a line too, below that of its group.
    """
    together: dict[tuple, list[GroupRow]] = {}
    for row in rows:
        key = (row.group, row.rule, row.optimizer, row.multiplier, row.rate_text, row.marks)
        together.setdefault(key, []).append(row)
    lines = [("variable", "group", "optimizer", "multiplier", "learning rate", "", "parameters")]
    for (group, rule, optimizer, multiplier, rate, marks), members in together.items():
        count = f"{len(members)} variable{'s' if len(members) > 1 else ''}"
        name = f"{group} ({rule})" if rule else group
        parameters = f"{sum(row.parameters for row in members):,}"
        settings = (optimizer or "-", f"{multiplier:.4g}", rate, marks, parameters)
        lines.append((count, name, *settings))
        if variables:
            lines += [
                (f"  {row.path}", "", "", "", "", "", f"{row.parameters:,}") for row in members
            ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


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
    )


def _is_orthogonalized(member: Member | None, variable: Any) -> bool | None:
    optimizer = None if member is None else member.optimizer
    if isinstance(optimizer, RuleOptimizer):
        return optimizer.part_of(variable).own_of(variable).get("orthogonalized")
    if isinstance(optimizer, keras.optimizers.Muon):
        return not optimizer._should_use_adamw(variable)
    return None
