"""`Difference`: what differs between two configs, which prints itself."""

import enum
from typing import Any, NamedTuple

from optimization.configs.documentation import value_text
from optimization.configs.errors import Origin


class _Absent(enum.Enum):
    ABSENT = False


ABSENT: Any = _Absent.ABSENT
"""In the place of a value that a config has not, since it has another type there."""


class Change(NamedTuple):
    """A value that differs.

    Attributes:
        path: Its place in the config.
        before: The value in the first config; `ABSENT` where it has none.
        after: The value in the second one.
        before_at: Where the first was written; None for a default.
        after_at: Where the second was written.
    """

    path: str
    before: Any
    after: Any
    before_at: Origin | None = None
    after_at: Origin | None = None

    def __str__(self) -> str:
        sides = (("-", self.before, self.before_at), ("+", self.after, self.after_at))
        lines = [
            f"  {sign} {value_text(value)}  ({origin or 'default'})"
            for sign, value, origin in sides
            if value is not ABSENT
        ]
        return "\n".join([self.path, *lines])


class CurveChange(NamedTuple):
    """Where two learning rates differ most.

    Attributes:
        path: The section of the rates, such as `learning_rate`.
        steps: How many steps were compared from step 0 on; the training's if its length is known,
            else those up to the last bend of the two.
        step: The step of the largest difference.
        before: The rate of the first config at that step.
        after: The rate of the second one.
    """

    path: str
    steps: int
    step: int
    before: float
    after: float

    @property
    def size(self) -> float:
        """The largest difference, >= 0; 0 where the curves are the same."""
        return abs(self.after - self.before)

    def __str__(self) -> str:
        if not self.size:
            return f"{self.path}: the curves are the same"
        rates = f"{self.before:.6g} and {self.after:.6g}"
        return f"{self.path}: the curves differ most at step {self.step:,}: {rates}"


class Difference(NamedTuple):
    """What differs between two configs as they train; it is false where nothing does.

    >>> from optimization import OptimizerConfig
    >>> sgd = OptimizerConfig(type="sgd", sgd={"momentum": 0.9})
    >>> print(sgd.diff(OptimizerConfig(type="sgd")))
    sgd.momentum
      - 0.9  (python)
      + 0.0  (default)

    Attributes:
        values: The values that differ.
        curves: For each learning rate that both have, where the two differ most.
        notes: What the differences are likely to mean.
    """

    values: tuple[Change, ...]
    curves: tuple[CurveChange, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values) or any(curve.size for curve in self.curves)

    def __str__(self) -> str:
        shown = (*self.values, *self.curves) if self else ("no difference",)
        return "\n".join(map(str, (*shown, *self.notes)))
