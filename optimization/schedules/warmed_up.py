"""Learning rates that bring their own warmup, as transformers': base classes, and its WSD."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from optimization.configs.fields import Steps, field
from optimization.configs.types import (
    REMAINING,
    REQUIRED,
    FirstSteps,
    Fraction,
    NonNegativeFloat,
    PositiveSteps,
)
from optimization.schedules.base import Array, BaseLrConfig, Floor, Namespace, ScopeName
from optimization.schedules.formulas import half_cosine, waves
from optimization.schedules.registry import LR_CLS

Form = Literal["linear", "cosine", "1-sqrt"]


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
    min_learning_rate: Floor = None
    num_warmup_steps: Steps[FirstSteps] = field(default=0)

    def warmup_conflicts(self) -> Iterator[tuple[str, str]]:
        if self.num_warmup_steps:
            yield "num_warmup_steps", "is a warmup, and the section `warmup` is another: use one"

    def at(self, step: Array, xp: Namespace) -> Array:
        return self.value(step, xp)

    def value(self, step: Array, xp: Namespace) -> Array:
        length, first = self.num_warmup_steps, self.initial_learning_rate
        rate = self.floored(first * self.factor(xp.maximum(step - length, 0.0), xp), xp)
        if length:
            ramp = first * self.ramp(xp.minimum(step, length), xp)
            rate = xp.where(step < length, ramp, rate)
        return rate

    def ramp(self, step: Array, xp: Namespace) -> Array:
        """Returns the factor at a step of the warmup."""
        return step / self.num_warmup_steps

    def factor(self, done: Array, xp: Namespace) -> Array:
        """Returns the factor `done` steps after the warmup."""
        raise NotImplementedError(f"{type(self).__name__} must define `factor`")


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


@LR_CLS.register("hf_warmup_stable_decay")
class HfWarmupStableDecayLrConfig(WarmedUpLrConfig):
    """transformers' `warmup_stable_decay`: up, level, and down, each part with its length.

        lr(s) = lr0 * (r + (1 - r) * up(s / W))                  for s < W
        lr(s) = lr0                                              for s < W + S
        lr(s) = lr0 * (r + (1 - r) * down((s - W - S) / D))      for s < W + S + D, then lr0 * r

    with up(p) = p for `linear`, (1 - cos(pi p)) / 2 for `cosine`, 1 - sqrt(1 - p) for `1-sqrt`, and
    down(p) = 1 - p, (1 + cos(2 pi c p)) / 2, 1 - sqrt(p).

    >>> rate = HfWarmupStableDecayLrConfig(
    ...     initial_learning_rate=1.0, num_warmup_steps=10, num_decay_steps=20,
    ...     num_training_steps=100,
    ... )
    >>> curve(rate, None, [0, 5, 80, 90, 100]).round(4)
    array([0. , 0.5, 1. , 0.5, 0. ])

    Source: as in transformers' `get_wsd_schedule`.

    Attributes:
        num_decay_steps: D, in optimizer steps, >= 0.
        num_training_steps: W + S + D, where `num_stable_steps` is not set; left out, the length
            of the training. With `num_stable_steps` it may be more than that sum, or null.
        num_stable_steps: S, in optimizer steps, >= 0; None for what is left.
        warmup_type: The form of the way up.
        decay_type: The form of the way down.
        min_lr_ratio: r, the first and last rate as a fraction of lr0.
        num_cycles: c, of the decay of type `cosine`; 0.5 ends at the least rate.
    """

    own_floors: ClassVar[tuple[str, ...]] = ("min_lr_ratio",)
    floor_shares: ClassVar[tuple[str, ...]] = ("min_lr_ratio",)

    name: ScopeName = "WsdSchedule"
    num_decay_steps: Steps[FirstSteps] = REQUIRED
    num_training_steps: Steps[PositiveSteps | None] = REMAINING
    num_stable_steps: Steps[FirstSteps | None] = field(default=None)
    warmup_type: Form = "linear"
    decay_type: Form = "cosine"
    min_lr_ratio: Fraction = 0.0
    num_cycles: NonNegativeFloat = 0.5

    def check(self) -> Iterator[tuple[str, str]]:
        parts = self.num_warmup_steps + self.num_decay_steps + (self.num_stable_steps or 0)
        if self.num_training_steps is None:
            if self.num_stable_steps is None:
                yield "num_stable_steps", "needs a number where `num_training_steps` is null"
        elif parts > self.num_training_steps:
            message = f"must be at least the sum of its parts, {parts}"
            yield "num_training_steps", f"{message}, got {self.num_training_steps}"
        if self.warmup_type != "linear" and not self.num_warmup_steps:
            yield "warmup_type", "needs `num_warmup_steps` > 0"
        if self.num_cycles != 0.5 and self.decay_type != "cosine":
            yield "num_cycles", "needs `decay_type: cosine`"

    def end(self) -> tuple[str, int]:
        name = "num_training_steps" if self.num_stable_steps is None else "num_decay_steps"
        return name, self.num_warmup_steps + self._stable_steps + self.num_decay_steps

    @property
    def _stable_steps(self) -> int:
        if self.num_stable_steps is not None or self.num_training_steps is None:
            return self.num_stable_steps or 0
        return self.num_training_steps - self.num_warmup_steps - self.num_decay_steps

    def ramp(self, step: Array, xp: Namespace) -> Array:
        up = step / self.num_warmup_steps
        if self.warmup_type == "cosine":
            up = half_cosine(up, xp)
        elif self.warmup_type == "1-sqrt":
            left = (self.num_warmup_steps - step) / self.num_warmup_steps
            up = up / (1.0 + xp.sqrt(left))  # 1 - sqrt(left), without its cancellation
        return (1.0 - self.min_lr_ratio) * up + self.min_lr_ratio

    def factor(self, done: Array, xp: Namespace) -> Array:
        length = max(1, self.num_decay_steps)
        gone = xp.clip(done - self._stable_steps, 0.0, length)
        left = (length - gone) / length
        if self.decay_type == "cosine":
            down = waves(gone, length, self.num_cycles, xp)
        elif self.decay_type == "1-sqrt":
            down = left / (1.0 + xp.sqrt(gone / length))  # 1 - sqrt(p), as above
        else:
            down = left
        # Whole waves would not end at 0.
        over = done >= self._stable_steps + self.num_decay_steps
        down = xp.where(over, xp.full_like(done, 0.0), down)
        return (1.0 - self.min_lr_ratio) * down + self.min_lr_ratio
