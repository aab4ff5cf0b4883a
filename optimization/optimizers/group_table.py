"""What each variable of a model is trained with, as data and as text."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from optimization.optimizers.groups import DEFAULT, ParamGroup
from optimization.optimizers.inner import is_decayed
from optimization.optimizers.members import Member

_COLUMNS = ("variable", "group", "optimizer", "multiplier", "learning rate", "", "parameters")


@dataclasses.dataclass(frozen=True)
class GroupRow:
    """What one variable is trained with.

    Attributes:
        path: The variable's path.
        group: Name of its group, "default" if no rule matches it.
        rule: The rule's matcher in words, such as `match='bias$'`; empty for the default group.
        optimizer: Class of the optimizer that updates it; empty if it is frozen.
        multiplier: Factor on the learning rate, with that of the layer.
        learning_rate: The learning rate now, multiplied; 0 if it is frozen.
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
    decayed: bool
    frozen: bool
    averaged: bool
    orthogonalized: bool | None
    parameters: int

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

    Args:
        rows: What `PipelineOptimizer.group_table()` returns.
        variables: Whether each variable has a line too, below that of its group.
    """
    together: dict[tuple, list[GroupRow]] = {}
    for row in rows:
        key = (row.group, row.rule, row.optimizer, row.multiplier, row.learning_rate, row.marks)
        together.setdefault(key, []).append(row)
    lines = [_COLUMNS]
    for (group, rule, optimizer, multiplier, rate, marks), members in together.items():
        count = f"{len(members)} variable{'s' if len(members) > 1 else ''}"
        name = f"{group} ({rule})" if rule else group
        parameters = f"{sum(row.parameters for row in members):,}"
        settings = (optimizer or "-", f"{multiplier:.4g}", f"{rate:.4g}", marks, parameters)
        lines.append((count, name, *settings))
        if variables:
            lines += [
                (f"  {row.path}", "", "", "", "", "", f"{row.parameters:,}") for row in members
            ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def table_row(
    path: str,
    group: ParamGroup | None,
    member: Member | None,
    variable: Any,
    averaged: bool,
) -> GroupRow:
    """Returns the row of a variable.

    Args:
        path: Its path.
        group: Its group, None for the default group.
        member: Who updates it; None if it is frozen.
        variable: What the member updates.
        averaged: Whether it has an average.
    """
    rate = 0.0 if member is None else float(ops.convert_to_numpy(member.optimizer.learning_rate))
    return GroupRow(
        path=path,
        group=group.name if group else DEFAULT,
        rule=group.matcher if group else "",
        optimizer="" if member is None else type(member.optimizer).__name__,
        multiplier=0.0 if member is None else member.multiplier,
        learning_rate=rate,
        decayed=member is not None and is_decayed(member.optimizer, variable),
        frozen=member is None,
        averaged=averaged,
        orthogonalized=_is_orthogonalized(member, variable),
        parameters=math.prod(variable.shape),
    )


def _is_orthogonalized(member: Member | None, variable: Any) -> bool | None:
    if member is None or not isinstance(member.optimizer, keras.optimizers.Muon):
        return None
    return not member.optimizer._should_use_adamw(variable)
