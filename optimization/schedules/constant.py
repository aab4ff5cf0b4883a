"""Learning rates that are constant, always or between boundaries."""

from collections.abc import Iterator, Sequence
from typing import Literal

from optimization.configs.fields import Field
from optimization.configs.types import REQUIRED, Boundaries, NonNegativeFloat, Offset
from optimization.schedules.base import Array, BaseLrConfig, Floor, Namespace, ScopeName
from optimization.schedules.formulas import lookup
from optimization.schedules.registry import LR_CLS


@LR_CLS.register("constant")
class ConstantLrConfig(BaseLrConfig):
    """Keeps the learning rate constant.

        lr(s) = learning_rate

    >>> curve(ConstantLrConfig(learning_rate=0.5), None, [0, 50, 100]).round(4)
    array([0.5, 0.5, 0.5])

    Source: as in Model Garden's `constant`.

    Attributes:
        learning_rate: The learning rate.
    """

    name: ScopeName = "Constant"
    learning_rate: NonNegativeFloat = 0.1

    def value(self, step: Array, xp: Namespace) -> Array:
        return xp.full_like(step, self.learning_rate)

    def constant_value(self) -> float:
        return self.learning_rate


@LR_CLS.register("stepwise")
class StepwiseLrConfig(BaseLrConfig):
    """Keeps the learning rate constant between boundaries, and changes it there.

        lr(s) = values[i],  i = the number of boundaries < s

    At a boundary exactly the value before it holds, as in Model Garden and Keras. With
    `at_boundary: new` the next one does, as in PyTorch's MultiStepLR and optax: i is then the
    number of boundaries <= s.

    >>> rate = StepwiseLrConfig(boundaries=[50, 80], values=[1.0, 0.1, 0.01])
    >>> curve(rate, None, [50, 51, 100]).round(4)
    array([1.  , 0.1 , 0.01])

    Source: as in Keras' PiecewiseConstantDecay.

    Attributes:
        boundaries: Optimizer steps, strictly increasing.
        values: Learning rates, >= 0, one more than `boundaries`.
        offset: The optimizer step at which the schedule starts; boundaries count from there.
        at_boundary: The value at a boundary itself: `old`, the one before it, or `new`.
    """

    name: ScopeName = "PiecewiseConstantDecay"
    min_learning_rate: Floor = None
    boundaries: Field[Boundaries, Sequence[int | str]] = REQUIRED
    values: Field[tuple[NonNegativeFloat, ...], Sequence[float]] = REQUIRED
    offset: Offset = 0
    at_boundary: Literal["old", "new"] = "old"

    _LEFT_OUT = (*BaseLrConfig._LEFT_OUT, "at_boundary")

    def check(self) -> Iterator[tuple[str, str]]:
        wanted = len(self.boundaries) + 1
        if len(self.values) != wanted:
            message = f"must have one value more than `boundaries`, {wanted}"
            yield "values", f"{message}, got {len(self.values)}"

    def value(self, step: Array, xp: Namespace) -> Array:
        side = "left" if self.at_boundary == "old" else "right"
        return lookup(step, self.boundaries, [self.values], side, xp)[0]
