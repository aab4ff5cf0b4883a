"""Learning rates that fall by a rate per `decay_steps`, in continuous time or in stairs."""

import math

from optimization.configs.base import config_dataclass
from optimization.configs.fields import Steps
from optimization.configs.types import (
    REMAINING,
    REQUIRED,
    NonNegativeFloat,
    PositiveFloat,
    PositiveSteps,
)
from optimization.schedules.base import Array, BaseLrConfig, Namespace, ScopeName
from optimization.schedules.formulas import whole_and_rest
from optimization.schedules.registry import LR_CLS


def _periods(step: Array, decay_steps: int, staircase: bool | None, xp: Namespace) -> Array:
    return whole_and_rest(step, decay_steps, xp)[0] if staircase else step / decay_steps


@LR_CLS.register("exponential")
@config_dataclass
class ExponentialLrConfig(BaseLrConfig):
    """Multiplies the rate by `decay_rate` every `decay_steps` steps.

        lr(s) = lr0 * decay_rate ** (s / decay_steps),  the exponent rounded down if `staircase`

    With `staircase` the step `decay_steps` itself already has the lower rate.

    >>> from optimization.schedules import curve
    >>> rate = ExponentialLrConfig(initial_learning_rate=1.0, decay_steps=100, decay_rate=0.5)
    >>> curve(rate, None, [0, 100, 200]).round(4)
    array([1.  , 0.5 , 0.25])

    Source: as in Keras' ExponentialDecay.

    Attributes:
        initial_learning_rate: lr0, the rate at step 0, >= 0.
        decay_steps: The optimizer steps in which the rate falls once by `decay_rate`, > 0.
        decay_rate: The factor, > 0; above 1 the rate grows without bound.
        staircase: Whether the rate falls in jumps; None means no.
    """

    name: ScopeName = "ExponentialDecay"
    initial_learning_rate: NonNegativeFloat = REQUIRED
    decay_steps: Steps[PositiveSteps] = REMAINING
    decay_rate: PositiveFloat = REQUIRED
    staircase: bool | None = None
    offset: int = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        periods = _periods(step, self.decay_steps, self.staircase, xp)
        # The logarithm, taken in float64, keeps the error of a float32 `decay_rate` from growing
        # with the exponent; base 2 keeps a rate of 0.5 exact.
        exponent = periods * math.log2(self.decay_rate)
        return self.initial_learning_rate * xp.power(xp.full_like(exponent, 2.0), exponent)


@LR_CLS.register("inverse_time")
@config_dataclass
class InverseTimeLrConfig(BaseLrConfig):
    """Lowers the rate as the inverse of the steps done.

        lr(s) = lr0 / (1 + decay_rate * p),  p = s / decay_steps, rounded down if `staircase`

    With `staircase` the step `decay_steps` itself already has the lower rate.

    >>> from optimization.schedules import curve
    >>> rate = InverseTimeLrConfig(initial_learning_rate=1.0, decay_steps=100, decay_rate=1.0)
    >>> curve(rate, None, [0, 100, 300]).round(4)
    array([1.  , 0.5 , 0.25])

    Source: as in Keras' InverseTimeDecay.

    Attributes:
        initial_learning_rate: lr0, the rate at step 0, >= 0.
        decay_steps: The optimizer steps that count as one unit of time, > 0.
        decay_rate: By how much the divisor grows in one unit of time, >= 0.
        staircase: Whether the rate falls in jumps; None means no.
    """

    name: ScopeName = "InverseTimeDecay"
    initial_learning_rate: NonNegativeFloat = REQUIRED
    decay_steps: Steps[PositiveSteps] = REMAINING
    decay_rate: NonNegativeFloat = REQUIRED
    staircase: bool | None = None
    offset: int = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        periods = _periods(step, self.decay_steps, self.staircase, xp)
        return self.initial_learning_rate / (1.0 + self.decay_rate * periods)
