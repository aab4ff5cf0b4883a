"""What each variable of a model is trained with, as a row of a table, and the table as text."""

import dataclasses
import math
from collections.abc import Sequence


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
        learning_rate: The learning rate now, multiplied; 0 if it is frozen, NaN if not known.
        highest_rate: The highest that its schedule gets to, multiplied; the rate now where that
            is a constant; None where it is not known, of a schedule that is not this package's or
            Keras'.
        decayed: Whether weight decay acts on it.
        frozen: Whether it stays as it is.
        averaged: Whether it has an average.
        orthogonalized: Whether its updates are, where the optimizer is a Muon; else None.
        parameters: How many numbers it holds; None if its shape is not known.
        freeze_steps: For how many optimizer steps it stays as it is at first.
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
    parameters: int | None
    freeze_steps: int = 0

    @property
    def rate_text(self) -> str:
        """The learning rate: `0.1` for a constant, `0 now, up to 0.1` for a schedule; `?`: NaN."""
        if math.isnan(self.learning_rate):
            return "?"
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
        if self.freeze_steps:
            held.append(f"frozen for {self.freeze_steps:,} steps")
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
        counts = [row.parameters for row in members if row.parameters is not None]
        parameters = _count(sum(counts) if len(counts) == len(members) else None)
        settings = (optimizer or "-", f"{multiplier:.4g}", rate, marks, parameters)
        lines.append((count, name, *settings))
        if variables:
            lines += [
                (f"  {row.path}", "", "", "", "", "", _count(row.parameters)) for row in members
            ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
