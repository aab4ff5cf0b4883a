"""Learning rates that fall along a polynomial of the steps that remain."""

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


@LR_CLS.register("polynomial")
@config_dataclass
class PolynomialLrConfig(BaseLrConfig):
    """Lowers the rate along a polynomial, from `initial_learning_rate` to `end_learning_rate`.

        lr(s) = (lr0 - end) * ((T - s) / T) ** power + end,  s at most T = decay_steps

    From step T on it is `end_learning_rate`. With `cycle`, T is instead the first multiple of
    `decay_steps` that is >= s (and > 0): the rate jumps up again after each multiple of
    `decay_steps`, each time less, as in Keras.

    >>> from optimization.schedules import curve
    >>> rate = PolynomialLrConfig(
    ...     initial_learning_rate=1.0, decay_steps=100, end_learning_rate=0.0, power=2.0
    ... )
    >>> curve(rate, None, [0, 50, 100]).round(4)
    array([1.  , 0.25, 0.  ])

    Source: as in Keras' PolynomialDecay.

    Attributes:
        initial_learning_rate: lr0, the rate at step 0, >= 0.
        decay_steps: The length of the decay; left out, it lasts to the end of the training.
        end_learning_rate: The rate at the end of the decay, >= 0.
        power: The power of the polynomial, > 0.
        cycle: Whether the rate comes up again after `decay_steps` steps.
    """

    name: ScopeName = "PolynomialDecay"
    initial_learning_rate: NonNegativeFloat = REQUIRED
    decay_steps: Steps[PositiveSteps] = REMAINING
    end_learning_rate: NonNegativeFloat = 0.0001
    power: PositiveFloat = 1.0
    cycle: bool = False
    offset: int = 0

    def end(self) -> tuple[str, int] | None:
        return None if self.cycle else ("decay_steps", self.decay_steps)

    def value(self, step: Array, xp: Namespace) -> Array:
        end, total = self.end_learning_rate, self.decay_steps
        if self.cycle:
            cycles, rest = whole_and_rest(step, total, xp)
            total = total * xp.maximum(xp.where(rest > 0, cycles + 1.0, cycles), 1.0)
        remaining = xp.maximum(total - step, 0.0) / total
        return (self.initial_learning_rate - end) * xp.power(remaining, self.power) + end


@LR_CLS.register("linear")
@config_dataclass
class LinearLrConfig(BaseLrConfig):
    """Lowers the rate along a line, from `initial_learning_rate` to `end_learning_rate`.

        lr(s) = (lr0 - end) * (T - s) / T + end,  s at most T = decay_steps

    From step T on it is `end_learning_rate`. This is `polynomial` with power 1 and an end of 0.

    >>> from optimization.schedules import curve
    >>> rate = LinearLrConfig(initial_learning_rate=1.0, decay_steps=100, end_learning_rate=0.0)
    >>> curve(rate, None, [0, 50, 100]).round(4)
    array([1. , 0.5, 0. ])

    Source: as in Keras' PolynomialDecay of power 1.

    Attributes:
        initial_learning_rate: lr0, the rate at step 0, >= 0.
        decay_steps: The length of the decay; left out, it lasts to the end of the training.
        end_learning_rate: The rate at the end of the decay, >= 0.
    """

    name: ScopeName = "LinearDecay"
    initial_learning_rate: NonNegativeFloat = REQUIRED
    decay_steps: Steps[PositiveSteps] = REMAINING
    end_learning_rate: NonNegativeFloat = 0.0
    offset: int = 0

    def end(self) -> tuple[str, int]:
        return "decay_steps", self.decay_steps

    def value(self, step: Array, xp: Namespace) -> Array:
        end = self.end_learning_rate
        remaining = xp.maximum(self.decay_steps - step, 0.0) / self.decay_steps
        return (self.initial_learning_rate - end) * remaining + end
