"""The base classes of learning rates that bring their own warmup, as transformers' do."""

from collections.abc import Iterator

from optimization.configs.base import config_dataclass
from optimization.configs.fields import Steps, field
from optimization.configs.types import (
    REMAINING,
    REQUIRED,
    FirstSteps,
    NonNegativeFloat,
    PositiveSteps,
)
from optimization.schedules.base import Array, BaseLrConfig, Namespace


@config_dataclass
class WarmedUpLrConfig(BaseLrConfig):
    """A learning rate with its own warmup: lr(s) = lr0 * (ramp(s) if s < W else factor(s - W)).

    A subclass has a method `factor`, and may have another `ramp` than s / W. A warmup and
    a training in per cent or epochs are rounded up, as transformers does: 3 % of 1234 are 38 steps.

    Attributes:
        initial_learning_rate: lr0, what the factors multiply, >= 0.
        num_warmup_steps: W, the length of the warmup in optimizer steps; 0 for none.
    """

    rounds_up = ("num_warmup_steps", "num_training_steps")  # not a field

    initial_learning_rate: NonNegativeFloat = REQUIRED
    num_warmup_steps: Steps[FirstSteps] = field(default=0)

    def warmup_conflicts(self) -> Iterator[tuple[str, str]]:
        if self.num_warmup_steps:
            yield "num_warmup_steps", "is a warmup, and the section `warmup` is another: use one"

    def value(self, step: Array, xp: Namespace) -> Array:
        length = self.num_warmup_steps
        factor = self.factor(xp.maximum(step - length, 0.0), xp)
        if length:
            factor = xp.where(step < length, self.ramp(xp.minimum(step, length), xp), factor)
        return self.initial_learning_rate * factor

    def ramp(self, step: Array, xp: Namespace) -> Array:
        """Returns the factor at a step of the warmup."""
        del xp
        return step / self.num_warmup_steps

    def factor(self, done: Array, xp: Namespace) -> Array:
        """Returns the factor `done` steps after the warmup."""
        raise NotImplementedError(f"{type(self).__name__} must define `factor`")


@config_dataclass
class EndingLrConfig(WarmedUpLrConfig):
    """A learning rate with its own warmup that has an end.

    Attributes:
        num_training_steps: N, the optimizer steps of the warmup and the decay together, > 0, at
            least W; left out, the length of the training.
    """

    num_training_steps: Steps[PositiveSteps] = REMAINING

    def check(self) -> Iterator[tuple[str, str]]:
        if self.num_warmup_steps > self.num_training_steps:
            message = f"must be <= `num_training_steps` {self.num_training_steps}"
            yield "num_warmup_steps", f"{message}, got {self.num_warmup_steps}"

    def end(self) -> tuple[str, int]:
        return "num_training_steps", self.num_training_steps

    @property
    def _length(self) -> int:
        """The steps after the warmup; 1 where there are none, as in transformers."""
        return max(1, self.num_training_steps - self.num_warmup_steps)
