"""Learning rates that fall by a rate, along a polynomial, or as a power of the steps done."""

import math
from typing import Annotated, ClassVar

from annotated_types import Lt

from optimization.configs.fields import Steps
from optimization.configs.types import (
    REMAINING,
    REQUIRED,
    Fraction,
    NonNegativeFloat,
    Offset,
    PositiveFloat,
    PositiveInt,
    PositiveSteps,
    Unit,
)
from optimization.schedules.base import (
    Array,
    BaseLrConfig,
    DecayLrConfig,
    Floor,
    InitialLrConfig,
    Namespace,
    ScopeName,
)
from optimization.schedules.formulas import whole_and_rest
from optimization.schedules.registry import LR_CLS


def _periods(step: Array, decay_steps: int, staircase: bool | None, xp: Namespace) -> Array:
    return whole_and_rest(step, decay_steps, xp)[0] if staircase else step / decay_steps


@LR_CLS.register("exponential")
class ExponentialLrConfig(InitialLrConfig):
    """Multiplies the rate by `decay_rate` every `decay_steps` steps.

        lr(s) = lr0 * decay_rate ** (s / decay_steps),  the exponent rounded down if `staircase`

    With `staircase` the step `decay_steps` itself already has the lower rate.

    >>> rate = ExponentialLrConfig(initial_learning_rate=1.0, decay_steps=100, decay_rate=0.5)
    >>> curve(rate, None, [0, 100, 200]).round(4)
    array([1.  , 0.5 , 0.25])

    Source: as in Keras' ExponentialDecay.

    Attributes:
        decay_steps: The optimizer steps in which the rate falls once by `decay_rate`, > 0.
        decay_rate: The factor, > 0; above 1 the rate grows without bound.
        staircase: Whether the rate falls in jumps; None means no.
    """

    name: ScopeName = "ExponentialDecay"
    decay_steps: Steps[PositiveSteps] = REMAINING
    decay_rate: PositiveFloat = REQUIRED
    staircase: bool | None = None
    offset: Offset = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        periods = _periods(step, self.decay_steps, self.staircase, xp)
        # The logarithm, taken in float64, keeps the error of a float32 `decay_rate` from growing
        # with the exponent; base 2 keeps a rate of 0.5 exact.
        exponent = periods * math.log2(self.decay_rate)
        return self.initial_learning_rate * xp.power(xp.full_like(exponent, 2.0), exponent)


@LR_CLS.register("inverse_time")
class InverseTimeLrConfig(InitialLrConfig):
    """Lowers the rate as the inverse of the steps done.

        lr(s) = lr0 / (1 + decay_rate * p),  p = s / decay_steps, rounded down if `staircase`

    With `staircase` the step `decay_steps` itself already has the lower rate.

    >>> rate = InverseTimeLrConfig(initial_learning_rate=1.0, decay_steps=100, decay_rate=1.0)
    >>> curve(rate, None, [0, 100, 300]).round(4)
    array([1.  , 0.5 , 0.25])

    Source: as in Keras' InverseTimeDecay.

    Attributes:
        decay_steps: The optimizer steps that count as one unit of time, > 0.
        decay_rate: By how much the divisor grows in one unit of time, >= 0.
        staircase: Whether the rate falls in jumps; None means no.
    """

    name: ScopeName = "InverseTimeDecay"
    decay_steps: Steps[PositiveSteps] = REMAINING
    decay_rate: NonNegativeFloat = REQUIRED
    staircase: bool | None = None
    offset: Offset = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        periods = _periods(step, self.decay_steps, self.staircase, xp)
        return self.initial_learning_rate / (1.0 + self.decay_rate * periods)


@LR_CLS.register("polynomial")
class PolynomialLrConfig(DecayLrConfig):
    """Lowers the rate along a polynomial, from `initial_learning_rate` to `end_learning_rate`.

        lr(s) = (lr0 - end) * ((T - s) / T) ** power + end,  s at most T = decay_steps

    From step T on it is `end_learning_rate`. With `cycle`, T is instead the first multiple of
    `decay_steps` that is >= s (and > 0): the rate jumps up again after each multiple of
    `decay_steps`, each time less, as in Keras.

    >>> rate = PolynomialLrConfig(initial_learning_rate=1.0, decay_steps=100, power=2.0)
    >>> curve(rate, None, [0, 50, 100]).round(3)
    array([1.  , 0.25, 0.  ])

    Source: as in Keras' PolynomialDecay.

    Attributes:
        end_learning_rate: The rate at the end of the decay, >= 0.
        power: The power of the polynomial, > 0.
        cycle: Whether the rate comes up again after `decay_steps` steps.
    """

    own_floors: ClassVar[tuple[str, ...]] = ("end_learning_rate",)

    name: ScopeName = "PolynomialDecay"
    end_learning_rate: NonNegativeFloat = 0.0001
    power: PositiveFloat = 1.0
    cycle: bool = False
    offset: Offset = 0

    def end(self) -> tuple[str, int] | None:
        return None if self.cycle else ("decay_steps", self.decay_steps)

    def value(self, step: Array, xp: Namespace) -> Array:
        end, total = self.lowest(self.end_learning_rate), self.decay_steps
        if self.cycle:
            cycles, rest = whole_and_rest(step, total, xp)
            total = total * xp.maximum(xp.where(rest > 0, cycles + 1.0, cycles), 1.0)
        remaining = xp.maximum(total - step, 0.0) / total
        return (self.initial_learning_rate - end) * xp.power(remaining, self.power) + end


@LR_CLS.register("linear")
class LinearLrConfig(DecayLrConfig):
    """Lowers the rate along a line, from `initial_learning_rate` to `end_learning_rate`.

        lr(s) = (lr0 - end) * (T - s) / T + end,  s at most T = decay_steps

    From step T on it is `end_learning_rate`. This is `polynomial` with power 1 and an end of 0.

    >>> curve(LinearLrConfig(initial_learning_rate=1.0, decay_steps=100), None, [0, 50, 100])
    array([1. , 0.5, 0. ])

    Source: as in Keras' PolynomialDecay of power 1.

    Attributes:
        end_learning_rate: The rate at the end of the decay, >= 0.
    """

    own_floors: ClassVar[tuple[str, ...]] = ("end_learning_rate",)

    name: ScopeName = "LinearDecay"
    end_learning_rate: NonNegativeFloat = 0.0
    offset: Offset = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        end = self.lowest(self.end_learning_rate)
        remaining = xp.maximum(self.decay_steps - step, 0.0) / self.decay_steps
        return (self.initial_learning_rate - end) * remaining + end


@LR_CLS.register("power")
class DirectPowerLrConfig(InitialLrConfig):
    """Changes the rate as a power of the steps done.

        lr(s) = lr0 * max(s, 1) ** power

    Steps 0 and 1 have the same rate, lr0.

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
    power: float = -0.5

    def value(self, step: Array, xp: Namespace) -> Array:
        return self.initial_learning_rate * xp.power(xp.maximum(step, 1.0), self.power)


@LR_CLS.register("power_linear")
class PowerAndLinearDecayLrConfig(InitialLrConfig):
    """Lowers the rate as a power of the steps done, and in the last part along a line to 0.

        lr(s) = lr0 * max(s, 1) ** power * min(1, (T - s) / (f * T)),  s at most T

    with T = total_decay_steps and f = linear_decay_fraction. From step T on it is 0. Where f is 0
    there is no such last part: the power goes on beyond T, as in Model Garden.

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
    total_decay_steps: Steps[PositiveSteps] = REMAINING
    power: float = -0.5
    linear_decay_fraction: Fraction = 0.1
    offset: Offset = 0

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
class PowerDecayWithOffsetLrConfig(InitialLrConfig):
    """Keeps the rate constant up to `offset`, then lowers it as a power of the steps since.

        lr(s) = pre                                 for s <= offset
        lr(s) = min(pre, lr0 * (s - offset) ** power)  for s > offset

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
    power: float = -0.5
    offset: Offset = 0
    pre_offset_learning_rate: NonNegativeFloat = 1.0e6

    def value(self, step: Array, xp: Namespace) -> Array:
        before = self.pre_offset_learning_rate
        after = self.initial_learning_rate * xp.power(xp.maximum(step, 1.0), self.power)
        return xp.where(step > 0, xp.minimum(after, before), xp.full_like(step, before))


@LR_CLS.register("power_law")
class PowerLawLrConfig(BaseLrConfig):
    """Lowers the rate as a power of the tokens seen, in proportion to the batch: Power scheduler.

        lr(s) = min(max_learning_rate, batch_size * a * (s * tokens_per_step) ** b)

    It needs no length of the training, and is meant for a decay at the end of it: the last phase of
    a `sequence`. `power_with_offset` is the same in steps.

    >>> rate = PowerLawLrConfig(max_learning_rate=0.02, batch_size=128, tokens_per_step=524288)
    >>> curve(rate, None, [0, 100, 10000, 100000]).round(5)
    array([0.02   , 0.02   , 0.00565, 0.00175])

    Source: Shen et al. 2024, arXiv:2408.13359, whose values the defaults of `a` and `b` are.

    Attributes:
        max_learning_rate: The highest rate, > 0.
        batch_size: Examples in one update, > 0: the batch of the formula.
        tokens_per_step: Tokens in one update, > 0.
        a: What the power is multiplied with, for a batch of one example, > 0.
        b: The power of the tokens, < 0.
    """

    name: ScopeName = "PowerLaw"
    max_learning_rate: PositiveFloat = REQUIRED
    batch_size: Annotated[PositiveInt, Unit("examples")] = REQUIRED
    tokens_per_step: Annotated[PositiveInt, Unit("tokens")] = REQUIRED
    a: PositiveFloat = 4.0
    b: Annotated[float, Lt(0)] = -0.51
    min_learning_rate: Floor = None
    offset: Offset = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        first = self.batch_size * self.a * float(self.tokens_per_step) ** self.b
        rate = first * xp.power(xp.maximum(step, 1.0), self.b)
        rate = xp.minimum(rate, self.max_learning_rate)
        return xp.where(step > 0, rate, xp.full_like(step, self.max_learning_rate))


@LR_CLS.register("inverse_sqrt")
class InverseSqrtLrConfig(InitialLrConfig):
    """Keeps the rate constant at first, then lowers it as the inverse root of the steps done.

        lr(s) = lr0 * sqrt(timescale / max(s, timescale))

    Up to step `timescale` the rate is lr0; at four times that it is lr0 / 2. This is T5's schedule,
    scaled so that lr0 is the highest rate; the schedule of that name in transformers is this one
    with `timescale` equal to the steps of a linear warmup.

    >>> rate = InverseSqrtLrConfig(initial_learning_rate=1.0, timescale=100)
    >>> curve(rate, None, [0, 100, 400]).round(4)
    array([1. , 1. , 0.5])

    Source: Raffel et al. 2020, arXiv:1910.10683.

    Attributes:
        initial_learning_rate: lr0, >= 0.
        timescale: Optimizer steps, > 0.
    """

    name: ScopeName = "InverseSqrtDecay"
    timescale: PositiveFloat = 10000.0
    offset: Offset = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        done = xp.maximum(step, self.timescale)
        return self.initial_learning_rate * xp.sqrt(self.timescale / done)


@LR_CLS.register("relative_step")
class RelativeStepLrConfig(BaseLrConfig):
    """The relative step size of Adafactor.

        lr(s) = min(1e-2, 1 / sqrt(s + 1))
        lr(s) = min(1e-6 * (s + 1), 1 / sqrt(s + 1))   with `warmup_init`

    It is 1e-2 up to step 9999 and falls from then on; with `warmup_init` it starts from 1e-6, and
    reaches 1e-2 at step 9999 too. `adafactor` with `step_size: relative` has it without being
    told: there a learning rate is an error.

    >>> curve(RelativeStepLrConfig(), None, [0, 9999, 39999]).round(4)
    array([0.01 , 0.01 , 0.005])

    Source: Shazeer and Stern 2018, arXiv:1804.04235.

    Attributes:
        warmup_init: Whether the rate comes up from 1e-6.
    """

    name: ScopeName = "RelativeStep"
    min_learning_rate: Floor = None
    warmup_init: bool = False

    def value(self, step: Array, xp: Namespace) -> Array:
        t = step + 1.0
        bound = 1e-6 * t if self.warmup_init else 1e-2
        return xp.minimum(bound, 1.0 / xp.sqrt(t))
