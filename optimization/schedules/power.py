"""Learning rates that fall as a power of the steps done."""

from typing import ClassVar

from optimization.configs.base import config_dataclass
from optimization.configs.fields import Steps
from optimization.configs.types import (
    REMAINING,
    REQUIRED,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveSteps,
)
from optimization.schedules.base import Array, BaseLrConfig, Namespace, ScopeName
from optimization.schedules.registry import LR_CLS


@LR_CLS.register("power")
@config_dataclass
class DirectPowerLrConfig(BaseLrConfig):
    """Changes the rate as a power of the steps done.

        lr(s) = lr0 * max(s, 1) ** power

    Steps 0 and 1 have the same rate, lr0.

    >>> from optimization.schedules import curve
    >>> rate = DirectPowerLrConfig(initial_learning_rate=1.0, power=-0.5)
    >>> curve(rate, None, [0, 1, 4, 100]).round(4)
    array([1. , 1. , 0.5, 0.1])

    Source: as in Model Garden's DirectPowerDecay.

    Attributes:
        initial_learning_rate: lr0, >= 0.
        power: The power; above 0 the rate grows without bound.
    """

    peak_is_asked: ClassVar[bool] = False

    name: ScopeName = "DirectPowerDecay"
    initial_learning_rate: NonNegativeFloat = REQUIRED
    power: float = -0.5

    def value(self, step: Array, xp: Namespace) -> Array:
        return self.initial_learning_rate * xp.power(xp.maximum(step, 1.0), self.power)


@LR_CLS.register("power_linear")
@config_dataclass
class PowerAndLinearDecayLrConfig(BaseLrConfig):
    """Lowers the rate as a power of the steps done, and in the last part along a line to 0.

        lr(s) = lr0 * max(s, 1) ** power * min(1, (T - s) / (f * T)),  s at most T

    with T = total_decay_steps and f = linear_decay_fraction. From step T on it is 0. Where f is 0
    there is no such last part: the power goes on beyond T, as in Model Garden.

    >>> from optimization.schedules import curve
    >>> rate = PowerAndLinearDecayLrConfig(
    ...     initial_learning_rate=1.0, total_decay_steps=100, power=-0.5, linear_decay_fraction=0.5
    ... )
    >>> curve(rate, None, [1, 4, 64, 100]).round(4)
    array([1.  , 0.5 , 0.09, 0.  ])

    Source: as in Model Garden's PowerAndLinearDecay.

    Attributes:
        initial_learning_rate: lr0, the rate at steps 0 and 1, >= 0.
        total_decay_steps: The length of the whole decay in optimizer steps, > 0.
        power: The power.
        linear_decay_fraction: The part of `total_decay_steps` in which the line acts.
    """

    peak_is_asked: ClassVar[bool] = False

    name: ScopeName = "PowerAndLinearDecay"
    initial_learning_rate: NonNegativeFloat = REQUIRED
    total_decay_steps: Steps[PositiveSteps] = REMAINING
    power: float = -0.5
    linear_decay_fraction: Fraction = 0.1
    offset: int = 0

    def end(self) -> tuple[str, int] | None:
        if self.linear_decay_fraction == 0:
            return None
        return "total_decay_steps", self.total_decay_steps

    def value(self, step: Array, xp: Namespace) -> Array:
        rate = self.initial_learning_rate * xp.power(xp.maximum(step, 1.0), self.power)
        linear_steps = self.total_decay_steps * self.linear_decay_fraction
        if linear_steps == 0:
            return rate
        return rate * xp.clip((self.total_decay_steps - step) / linear_steps, 0.0, 1.0)


@LR_CLS.register("power_with_offset")
@config_dataclass
class PowerDecayWithOffsetLrConfig(BaseLrConfig):
    """Keeps the rate constant up to `offset`, then lowers it as a power of the steps since.

        lr(s) = pre                                 for s <= offset
        lr(s) = min(pre, lr0 * (s - offset) ** power)  for s > offset

    >>> from optimization.schedules import curve
    >>> rate = PowerDecayWithOffsetLrConfig(
    ...     initial_learning_rate=1.0, offset=10, pre_offset_learning_rate=0.8
    ... )
    >>> curve(rate, None, [0, 10, 14, 110]).round(4)
    array([0.8, 0.8, 0.5, 0.1])

    Source: as in Model Garden's PowerDecayWithOffset.

    Attributes:
        initial_learning_rate: lr0, the rate at step `offset` + 1, >= 0.
        power: The power.
        offset: The last optimizer step that has the constant rate.
        pre_offset_learning_rate: pre, the constant, and the bound of the rate after it. Its
            default is Model Garden's, which trains with a rate of a million up to step
            `offset`: set it, or a warmup longer than `offset`.
    """

    peak_is_asked: ClassVar[bool] = False

    name: ScopeName = "PowerDecayWithOffset"
    initial_learning_rate: NonNegativeFloat = REQUIRED
    power: float = -0.5
    offset: int = 0
    pre_offset_learning_rate: NonNegativeFloat = 1.0e6

    def value(self, step: Array, xp: Namespace) -> Array:
        before = self.pre_offset_learning_rate
        after = self.initial_learning_rate * xp.power(xp.maximum(step, 1.0), self.power)
        return xp.where(step > 0, xp.minimum(after, before), xp.full_like(step, before))


@LR_CLS.register("inverse_sqrt")
@config_dataclass
class InverseSqrtLrConfig(BaseLrConfig):
    """Keeps the rate constant at first, then lowers it as the inverse root of the steps done.

        lr(s) = lr0 * sqrt(timescale / max(s, timescale))

    Up to step `timescale` the rate is lr0; at four times that it is lr0 / 2. This is T5's schedule,
    scaled so that lr0 is the highest rate; the schedule of that name in transformers is this one
    with `timescale` equal to the steps of a linear warmup.

    >>> from optimization.schedules import curve
    >>> rate = InverseSqrtLrConfig(initial_learning_rate=1.0, timescale=100)
    >>> curve(rate, None, [0, 100, 400]).round(4)
    array([1. , 1. , 0.5])

    Source: Raffel et al. 2020, arXiv:1910.10683.

    Attributes:
        initial_learning_rate: lr0, >= 0.
        timescale: Optimizer steps, > 0.
    """

    name: ScopeName = "InverseSqrtDecay"
    initial_learning_rate: NonNegativeFloat = REQUIRED
    timescale: PositiveFloat = 10000.0
    offset: int = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        done = xp.maximum(step, self.timescale)
        return self.initial_learning_rate * xp.sqrt(self.timescale / done)
