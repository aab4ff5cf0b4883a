"""The learning rates of transformers, under its names and with its meanings.

Model Garden and transformers both have a `cosine` and a `polynomial`, and mean other things by
them: here a type is what transformers' `SchedulerType` calls it, after `hf_`. Each has its warmup
built in, and counts all of its steps from step 0, so `num_training_steps` contains the warmup.
Values are those of transformers 5.23.
"""

from collections.abc import Iterator
from typing import ClassVar

from optimization.configs.types import (
    REQUIRED,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)
from optimization.schedules.base import Array, BaseLrConfig, Namespace, ScopeName
from optimization.schedules.formulas import half_cosine, waves, whole_and_rest
from optimization.schedules.registry import LR_CLS
from optimization.schedules.warmed_up import EndingLrConfig, WarmedUpLrConfig


class _CosineLrConfig(EndingLrConfig):
    """One that follows waves of a cosine.

    Attributes:
        num_cycles: c, how many waves there are up to step N; 0.5 ends at the least rate.
    """

    steps_ahead = 0.0  # not a field

    num_cycles: NonNegativeFloat = 0.5

    def factor(self, done: Array, xp: Namespace) -> Array:
        return waves(done, self._length, self.num_cycles, xp, self.steps_ahead)


class _MinLrConfig(_CosineLrConfig):
    """One that falls to a least rate.

    Attributes:
        min_lr: The least rate, r * lr0; exactly one of this and the next is set.
        min_lr_rate: r, the least rate as a fraction of lr0.
    """

    own_floors: ClassVar[tuple[str, ...]] = ("min_lr", "min_lr_rate")
    floor_shares: ClassVar[tuple[str, ...]] = ("min_lr_rate",)

    min_lr: NonNegativeFloat | None = None
    min_lr_rate: Fraction | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if (self.min_lr is None) == (self.min_lr_rate is None):
            yield "min_lr", "exactly one of `min_lr` and `min_lr_rate` must be set"
        elif self.min_lr is not None and self.min_lr > self.initial_learning_rate:
            message = f"must be <= `initial_learning_rate` {self.initial_learning_rate}"
            yield "min_lr", f"{message}, got {self.min_lr}"

    def factor(self, done: Array, xp: Namespace) -> Array:
        rate = self.min_lr_rate
        if rate is None:
            rate = self.min_lr / self.initial_learning_rate if self.min_lr else 0.0
        return (1.0 - rate) * super().factor(done, xp) + rate


@LR_CLS.register("hf_constant")
class HfConstantLrConfig(BaseLrConfig):
    """transformers' `constant`, which is the type `constant` under its name.

        lr(s) = initial_learning_rate

    >>> curve(HfConstantLrConfig(initial_learning_rate=1.0), None, [0, 100]).round(4)
    array([1., 1.])

    Source: as in transformers' `get_constant_schedule`.

    Attributes:
        initial_learning_rate: The learning rate, >= 0.
    """

    name: ScopeName = "ConstantSchedule"
    initial_learning_rate: NonNegativeFloat = REQUIRED

    def value(self, step: Array, xp: Namespace) -> Array:
        return xp.full_like(step, self.initial_learning_rate)

    def constant_value(self) -> float:
        return self.initial_learning_rate


@LR_CLS.register("hf_constant_with_warmup")
class HfConstantWithWarmupLrConfig(WarmedUpLrConfig):
    """transformers' `constant_with_warmup`: a line up to a constant.

        lr(s) = lr0 * s / W  for s < W, then lr0

    >>> rate = HfConstantWithWarmupLrConfig(initial_learning_rate=1.0, num_warmup_steps=10)
    >>> curve(rate, None, [0, 5, 10, 100]).round(4)
    array([0. , 0.5, 1. , 1. ])

    Source: as in transformers' `get_constant_schedule_with_warmup`.
    """

    name: ScopeName = "ConstantScheduleWithWarmup"

    def factor(self, done: Array, xp: Namespace) -> Array:
        return xp.full_like(done, 1.0)


@LR_CLS.register("hf_linear")
class HfLinearLrConfig(EndingLrConfig):
    """transformers' `linear`: a line up, then a line down to 0.

        lr(s) = lr0 * s / W                             for s < W
        lr(s) = lr0 * max(0, (N - s) / max(1, N - W))   then

    >>> rate = HfLinearLrConfig(initial_learning_rate=1.0, num_warmup_steps=1, num_training_steps=5)
    >>> curve(rate, None, [0, 1, 3, 5]).round(4)
    array([0. , 1. , 0.5, 0. ])

    Source: as in transformers' `get_linear_schedule_with_warmup`.
    """

    name: ScopeName = "LinearScheduleWithWarmup"

    def factor(self, done: Array, xp: Namespace) -> Array:
        left = self.num_training_steps - self.num_warmup_steps - done
        return xp.maximum(left, 0.0) / self._length


@LR_CLS.register("hf_cosine")
class HfCosineLrConfig(_CosineLrConfig):
    """transformers' `cosine`: a line up, then waves of a cosine.

        lr(s) = lr0 * s / W                      for s < W
        lr(s) = lr0 * (1 + cos(2 pi c p)) / 2    then, p = (s - W) / max(1, N - W)

    It goes on past step N, and there rises again, as in transformers: train for N steps.

    >>> rate = HfCosineLrConfig(initial_learning_rate=1.0, num_warmup_steps=1, num_training_steps=5)
    >>> curve(rate, None, [0, 1, 3, 5]).round(4)
    array([0. , 1. , 0.5, 0. ])

    Source: as in transformers' `get_cosine_schedule_with_warmup`.
    """

    name: ScopeName = "CosineScheduleWithWarmup"


@LR_CLS.register("hf_cosine_with_restarts")
class HfCosineWithRestartsLrConfig(EndingLrConfig):
    """transformers' `cosine_with_restarts`: a line up, then half cosines of equal length.

        lr(s) = lr0 * s / W                             for s < W
        lr(s) = lr0 * (1 + cos(pi (c p mod 1))) / 2     then, p = (s - W) / max(1, N - W)
        lr(s) = 0                                       for p >= 1

    A restart is exactly at the first step with c p >= i. (transformers rounds c p, and for some
    c, 49 for example, has the end of the cycle in the place of its restart.)

    >>> rate = HfCosineWithRestartsLrConfig(
    ...     initial_learning_rate=1.0, num_training_steps=100, num_cycles=2
    ... )
    >>> curve(rate, None, [0, 25, 50, 75, 100]).round(4)
    array([1. , 0.5, 1. , 0.5, 0. ])

    Source: as in transformers' `get_cosine_with_hard_restarts_schedule_with_warmup`.

    Attributes:
        num_cycles: c, the number of half cosines, >= 1.
    """

    name: ScopeName = "CosineWithHardRestartsScheduleWithWarmup"
    num_cycles: PositiveInt = 1

    def factor(self, done: Array, xp: Namespace) -> Array:
        period = self._length / self.num_cycles
        _, rest = whole_and_rest(done, period, xp)
        wave = half_cosine((period - rest) / period, xp)
        return xp.where(done < self._length, wave, xp.full_like(done, 0.0))


@LR_CLS.register("hf_polynomial")
class HfPolynomialLrConfig(EndingLrConfig):
    """transformers' `polynomial`: a line up, then a power of what is left.

        lr(s) = lr0 * s / W                                    for s < W
        lr(s) = (lr0 - end) * ((N - s) / (N - W)) ** p + end   then, s at most N

    >>> rate = HfPolynomialLrConfig(initial_learning_rate=1.0, num_training_steps=100, power=2.0)
    >>> curve(rate, None, [0, 50, 100]).round(4)
    array([1.  , 0.25, 0.  ])

    Source: as in transformers' `get_polynomial_decay_schedule_with_warmup`.

    Attributes:
        lr_end: The rate from step N on, >= 0.
        power: p, > 0.
    """

    own_floors: ClassVar[tuple[str, ...]] = ("lr_end",)

    name: ScopeName = "PolynomialDecayScheduleWithWarmup"
    lr_end: NonNegativeFloat = 1e-7
    power: PositiveFloat = 1.0

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.lr_end >= self.initial_learning_rate:
            message = f"must be < `initial_learning_rate` {self.initial_learning_rate}"
            yield "lr_end", f"{message}, got {self.lr_end}"

    def factor(self, done: Array, xp: Namespace) -> Array:
        left = xp.maximum(self.num_training_steps - self.num_warmup_steps - done, 0.0)
        end = self.lr_end / self.initial_learning_rate
        return (1.0 - end) * xp.power(left / self._length, self.power) + end


@LR_CLS.register("hf_inverse_sqrt")
class HfInverseSqrtLrConfig(WarmedUpLrConfig):
    """transformers' `inverse_sqrt`: a line up, then the inverse root of the steps.

        lr(s) = lr0 * s / W                          for s < W
        lr(s) = lr0 * sqrt(ts / (ts + s - W))        then

    >>> rate = HfInverseSqrtLrConfig(initial_learning_rate=1.0, num_warmup_steps=100)
    >>> curve(rate, None, [0, 50, 100, 400]).round(4)
    array([0. , 0.5, 1. , 0.5])

    Source: as in transformers' `get_inverse_sqrt_schedule`.

    Attributes:
        timescale: ts, in optimizer steps, > 0; None for W, or 10000 without warmup.
    """

    name: ScopeName = "InverseSqrtSchedule"
    timescale: PositiveFloat | None = None

    def factor(self, done: Array, xp: Namespace) -> Array:
        timescale = float(self.timescale or self.num_warmup_steps or 10000)
        return xp.sqrt(timescale / (timescale + done))


@LR_CLS.register("hf_cosine_with_min_lr")
class HfCosineWithMinLrConfig(_MinLrConfig):
    """transformers' `cosine_with_min_lr`: a line up, then waves of a cosine above a least rate.

        lr(s) = lr0 * s / W                                      for s < W
        lr(s) = lr0 * (r + (1 - r) * (1 + cos(2 pi c p)) / 2)    then, p = (s - W) / max(1, N - W)

    It goes on past step N, and there rises again, as in transformers.

    >>> rate = HfCosineWithMinLrConfig(
    ...     initial_learning_rate=1.0, num_training_steps=100, min_lr=0.1
    ... )
    >>> curve(rate, None, [0, 50, 100]).round(4)
    array([1.  , 0.55, 0.1 ])

    Source: as in transformers' `get_cosine_with_min_lr_schedule_with_warmup`.
    """

    name: ScopeName = "CosineWithMinLrScheduleWithWarmup"


@LR_CLS.register("hf_cosine_warmup_with_min_lr")
class HfCosineWarmupWithMinLrConfig(_MinLrConfig):
    """transformers' `cosine_warmup_with_min_lr`: as `cosine_with_min_lr`, a step ahead.

        lr(s) = lr0 * (s + 1) / W                                for s < W, w being None
        lr(s) = lr0 * (w + (1 - w) * s / max(1, W - 1))          for s < W, with w
        lr(s) = lr0 * (r + (1 - r) * (1 + cos(2 pi c p)) / 2)    then

    with p = (s - W + 1) / max(1, N - W). So the first step has a rate above 0, and the last one,
    s = N - 1, the least. It goes on past it, and there rises again, as in transformers.

    >>> rate = HfCosineWarmupWithMinLrConfig(
    ...     initial_learning_rate=1.0, num_training_steps=100, min_lr=0.1
    ... )
    >>> curve(rate, None, [0, 49, 99]).round(4)
    array([0.9998, 0.55  , 0.1   ])

    Source: as in transformers' `get_cosine_with_min_lr_schedule_with_warmup_lr_rate`.

    Attributes:
        warmup_lr_rate: w, the rate at step 0 as a fraction of lr0; None for 1 / W.
    """

    steps_ahead = 1.0

    name: ScopeName = "CosineWithMinLrScheduleWithWarmupLrRate"
    warmup_lr_rate: Fraction | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.warmup_lr_rate is not None and not self.num_warmup_steps:
            yield "warmup_lr_rate", "needs `num_warmup_steps` > 0"

    def ramp(self, step: Array, xp: Namespace) -> Array:
        start = self.warmup_lr_rate
        if start is None:
            return (step + 1.0) / self.num_warmup_steps
        return start + (1.0 - start) * (step / max(1, self.num_warmup_steps - 1))
