"""Learning rates that fall along half a cosine, once or several times."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, ClassVar

from annotated_types import Ge

from optimization.configs.fields import Field, Steps
from optimization.configs.types import (
    REQUIRED,
    Boundaries,
    Fraction,
    NonNegativeFloat,
    Offset,
    PositiveSteps,
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
from optimization.schedules.formulas import half_cosine, lookup, whole_and_rest
from optimization.schedules.registry import LR_CLS


@LR_CLS.register("cosine")
class CosineLrConfig(DecayLrConfig):
    """Leads the rate along half a cosine, from `initial_learning_rate` to `alpha` times that.

        lr(s) = lr0 * (alpha + (1 - alpha) * (1 + cos(pi * s / T)) / 2),  s at most T = decay_steps

    From step T on it is lr0 * alpha. This is SGDR without restarts. A cosine term below 2**-26
    counts as 0, as in Model Garden and Keras, whose float32 sum 1 + cos loses it: this concerns the
    last T / 12868 steps. With `alpha` above 1 it rises, as DINO's weight decay does.

    >>> rate = CosineLrConfig(initial_learning_rate=1.0, decay_steps=100)
    >>> curve(rate, None, [0, 50, 100]).round(4)
    array([1. , 0.5, 0. ])

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983; as in Keras' CosineDecay.

    Attributes:
        alpha: The last rate divided by the first, >= 0.
    """

    own_floors: ClassVar[tuple[str, ...]] = ("alpha",)
    floor_shares: ClassVar[tuple[str, ...]] = ("alpha",)

    name: ScopeName = "CosineDecay"
    alpha: NonNegativeFloat = 0.0
    offset: Offset = 0

    def value(self, step: Array, xp: Namespace) -> Array:
        remaining = xp.maximum(self.decay_steps - step, 0.0) / self.decay_steps
        weight = half_cosine(remaining, xp)
        weight = xp.where(weight < 2.0**-26, 0.0, weight)
        low = self.lowest(self.initial_learning_rate * self.alpha)
        return (self.initial_learning_rate - low) * weight + low


@lru_cache(maxsize=64)
def _restarts(first: int, t_mul: float, m_mul: float) -> tuple[tuple[float, ...], ...]:
    """Returns each cycle's first step, end, length and height."""
    starts, lengths, heights = [0.0], [float(first)], [1.0]
    while starts[-1] + lengths[-1] < 2**53:  # up to which steps are exact
        # Rounded, so that 100 + 220 + 2.2 * 220 is the step 804, and not a little more.
        starts.append(round(starts[-1] + lengths[-1], 6))
        lengths.append(lengths[-1] * t_mul)
        heights.append(heights[-1] * m_mul)
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    return tuple(starts), tuple(ends), tuple(lengths), tuple(heights)


@LR_CLS.register("cosine_restarts")
class CosineRestartsLrConfig(InitialLrConfig):
    """Restarts a cosine decay, each time `t_mul` times as long and `m_mul` times as high: SGDR.

        lr(s) = lr0 * (alpha + (1 - alpha) * m_mul**i * (1 + cos(pi * u)) / 2)

    where i counts the restarts up to step s, and u is the part of the cycle i that is done. A cycle
    of T steps that starts at step a ends before the step a + T, which is the first of the next. The
    fields are those of Keras' CosineDecayRestarts, which finds i by a float32 logarithm and may be
    a step late.

    >>> rate = CosineRestartsLrConfig(initial_learning_rate=1.0, first_decay_steps=100, m_mul=0.5)
    >>> curve(rate, None, [0, 50, 100, 200]).round(4)
    array([1.  , 0.5 , 0.5 , 0.25])

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.

    Attributes:
        first_decay_steps: The length of the first cycle.
        t_mul: The length of a cycle relative to the one before: 1, or at least 1.001.
        m_mul: The height of a cycle relative to the one before, in [0, 1].
        alpha: The lowest rate as a fraction of lr0.
    """

    own_floors: ClassVar[tuple[str, ...]] = ("alpha",)
    floor_shares: ClassVar[tuple[str, ...]] = ("alpha",)

    name: ScopeName = "CosineDecayRestarts"
    first_decay_steps: Steps[PositiveSteps] = REQUIRED
    t_mul: Annotated[float, Ge(1)] = 2.0
    m_mul: Fraction = 1.0
    alpha: Fraction = 0.0
    offset: Offset = 0

    def check(self) -> Iterator[tuple[str, str]]:
        if 1 < self.t_mul < 1.001:  # too many cycles to be worked out one by one
            yield "t_mul", f"must be 1 or at least 1.001, got {self.t_mul!r}"

    def value(self, step: Array, xp: Namespace) -> Array:
        if self.t_mul == 1:
            cycle, done = whole_and_rest(step, self.first_decay_steps, xp)
            remaining = (self.first_decay_steps - done) / self.first_decay_steps
            height = xp.power(xp.full_like(cycle, self.m_mul), cycle)
        else:
            table = _restarts(self.first_decay_steps, self.t_mul, self.m_mul)
            boundaries = [float(math.ceil(start)) for start in table[0][1:]]
            end, length, height = lookup(step, boundaries, table[1:], "right", xp)
            remaining = xp.maximum(end - step, 0.0) / length
        low = self.lowest(self.initial_learning_rate * self.alpha)
        return (self.initial_learning_rate - low) * height * half_cosine(remaining, xp) + low


@LR_CLS.register("step_cosine_with_offset")
class StepCosineLrConfig(BaseLrConfig):
    """Leads the rate along half cosines between values at given steps.

        lr(s) = values[i + 1] + (values[i] - values[i + 1]) * (1 + cos(pi * u)) / 2

    for boundaries[i] <= s < boundaries[i + 1], u being the part of that interval that is done, so
    that lr(boundaries[i]) = values[i]. Before the first boundary it is values[0], and from the last
    one on values[-1]. (Model Garden goes through the first half cosine several times if the first
    boundary is not 0, and divides by zero from the last boundary on.)

    >>> rate = StepCosineLrConfig(boundaries=[50, 100], values=[1.0, 0.5])
    >>> curve(rate, None, [0, 50, 75, 100]).round(4)
    array([1.  , 1.  , 0.75, 0.5 ])

    Source: as in Model Garden's StepCosineDecayWithOffset.

    Attributes:
        boundaries: Optimizer steps, strictly increasing; the first is usually 0.
        values: The learning rate at each boundary, >= 0.
        offset: The optimizer step at which the schedule starts; boundaries count from there.
    """

    name: ScopeName = "StepCosineDecayWithOffset"
    min_learning_rate: Floor = None
    boundaries: Field[Boundaries, Sequence[int | str]] = REQUIRED
    values: Field[tuple[NonNegativeFloat, ...], Sequence[float]] = REQUIRED
    offset: Offset = 0

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.boundaries:
            yield "boundaries", "must have at least one step"
        wanted = len(self.boundaries)
        if len(self.values) != wanted:
            message = f"must have as many values as `boundaries`, {wanted}, got {len(self.values)}"
            yield "values", message

    def end(self) -> tuple[str, int]:
        return "boundaries", self.boundaries[-1]

    def value(self, step: Array, xp: Namespace) -> Array:
        # The intervals before the first and after the last boundary go from a value to itself.
        ends = (*self.boundaries, self.boundaries[-1])
        lengths = [1, *(end - start for start, end in pairwise(self.boundaries)), 1]
        starts = (self.values[0], *self.values)
        targets = (*self.values, self.values[-1])
        rises = [start - target for start, target in zip(starts, targets, strict=True)]
        tables = [ends, lengths, rises, targets]
        end, length, rise, target = lookup(step, self.boundaries, tables, "right", xp)
        remaining = xp.maximum(end - step, 0.0) / length
        return target + rise * half_cosine(remaining, xp)
