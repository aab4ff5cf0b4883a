"""Learning rates made of phases: stable then decaying, and up then down."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from optimization.configs.fields import Steps
from optimization.configs.types import (
    REMAINING,
    REQUIRED,
    Fraction,
    NonNegativeSteps,
    Offset,
    PositiveFloat,
    PositiveSteps,
)
from optimization.schedules.base import (
    Array,
    BaseLrConfig,
    Floor,
    InitialLrConfig,
    Namespace,
    ScopeName,
)
from optimization.schedules.formulas import half_cosine, lookup
from optimization.schedules.registry import LR_CLS


@LR_CLS.register("warmup_stable_decay")
class WarmupStableDecayLrConfig(InitialLrConfig):
    """Keeps the rate constant, then lowers it: two phases of a warmup-stable-decay schedule.

        lr(s) = lr0                               for s <= S = stable_steps
        lr(s) = lr0 * (r + (1 - r) * (1 - d(u)))  after it, u = min((s - S) / decay_steps, 1)

    with r = min_lr_ratio and d(u) = u for `linear`, (1 - cos(pi u)) / 2 for `cosine`, sqrt(u) for
    `1-sqrt`. `exponential` and `inverse` fall by equal factors, and as a line of 1 / lr:

        lr(s) = lr0 * r ** u              `exponential`, r > 0
        lr(s) = lr0 / (1 - u + u / r)     `inverse`, r > 0

    From step S + decay_steps on it is lr0 * r. The warmup is that of the warmup section;
    with its `mode: replace` the stable phase counts from step 0 and contains the warmup.

    >>> rate = WarmupStableDecayLrConfig(initial_learning_rate=1.0, stable_steps=80, decay_steps=20)
    >>> curve(rate, None, [0, 80, 90, 100]).round(4)
    array([1. , 1. , 0.5, 0. ])

    Source: Hu et al. 2024 (MiniCPM), arXiv:2404.06395; `1-sqrt`: Hägele et al. 2024,
    arXiv:2405.18392; `inverse`: Wen et al. 2024, arXiv:2410.05192.

    Attributes:
        initial_learning_rate: lr0, >= 0.
        stable_steps: The length of the stable phase in optimizer steps, >= 0.
        decay_steps: The length of the decay; left out, it lasts to the end of the training.
        min_lr_ratio: r, the last rate as a fraction of lr0.
        decay_type: The form of the decay.
    """

    own_floors: ClassVar[tuple[str, ...]] = ("min_lr_ratio",)
    floor_shares: ClassVar[tuple[str, ...]] = ("min_lr_ratio",)

    name: ScopeName = "WarmupStableDecay"
    stable_steps: Steps[NonNegativeSteps] = REQUIRED
    decay_steps: Steps[PositiveSteps] = REMAINING
    min_lr_ratio: Fraction = 0.0
    decay_type: Literal["linear", "cosine", "1-sqrt", "exponential", "inverse"] = "linear"
    offset: Offset = 0

    def check(self) -> Iterator[tuple[str, str]]:
        if self.decay_type in ("exponential", "inverse") and not self.lowest(self.min_lr_ratio):
            yield "decay_type", f"`{self.decay_type}` needs `min_lr_ratio` > 0, and comes to it"

    def end(self) -> tuple[str, int]:
        return "decay_steps", self.stable_steps + self.decay_steps

    def value(self, step: Array, xp: Namespace) -> Array:
        length = self.decay_steps
        done = xp.clip(step - self.stable_steps, 0.0, length) / length
        low = self.lowest(self.initial_learning_rate * self.min_lr_ratio)
        if self.decay_type in ("exponential", "inverse"):
            return self._by_ratio(done, low / (self.initial_learning_rate or 1.0), xp)
        remaining = xp.clip(self.stable_steps + length - step, 0.0, length) / length
        if self.decay_type == "cosine":
            remaining = half_cosine(remaining, xp)
        elif self.decay_type == "1-sqrt":
            # This is 1 - sqrt(done), without its cancellation near the end.
            remaining = remaining / (1.0 + xp.sqrt(done))
        return (self.initial_learning_rate - low) * remaining + low

    def _by_ratio(self, done: Array, ratio: float, xp: Namespace) -> Array:
        """Returns the rate on its way to `ratio` times the first; `done` goes from 0 to 1."""
        if ratio == 0:  # of a first rate of 0
            return xp.full_like(done, 0.0)
        if self.decay_type == "inverse":
            return self.initial_learning_rate * ratio / (ratio * (1.0 - done) + done)
        exponent = done * math.log2(ratio)
        return self.initial_learning_rate * xp.power(xp.full_like(done, 2.0), exponent)


@LR_CLS.register("one_cycle")
class OneCycleLrConfig(BaseLrConfig):
    """Raises the rate to a maximum and lowers it again.

    With T = total_steps, P = pct_start * T - 1, first = max_learning_rate / div_factor and
    last = first / final_div_factor, the rate goes from first at step 0 to max_learning_rate at step
    P, and then to last at step T - 1; with `three_phase` to first at step 2 P, and then to last at
    step T - 1. With u the part of a phase from a to b that is done:

        lr = b + (a - b) * (1 + cos(pi u)) / 2     `anneal_strategy: cos`
        lr = a + (b - a) * u                       `anneal_strategy: linear`

    From step T - 1 on it is `last` (PyTorch raises an error from step T on). Momentum is left
    alone, unlike PyTorch's default.

    >>> rate = OneCycleLrConfig(max_learning_rate=1.0, total_steps=100, pct_start=0.5)
    >>> curve(rate, None, [0, 49, 74, 99]).round(4)
    array([0.04, 1.  , 0.5 , 0.  ])

    Source: Smith and Topin 2018, arXiv:1708.07120; as in PyTorch's OneCycleLR.

    Attributes:
        max_learning_rate: The highest rate, > 0.
        total_steps: T, in optimizer steps, > 1.
        pct_start: The part of the steps in which the rate goes up, in (0, 1).
        div_factor: max_learning_rate / first, >= 1 in sensible use, > 0.
        final_div_factor: first / last, > 0.
        anneal_strategy: The form of each phase: half a cosine, or a line.
        three_phase: Whether the rate goes down to `first` as fast as it came up.
    """

    floor_shares: ClassVar[tuple[str, ...]] = ("final_div_factor",)

    name: ScopeName = "OneCycle"
    min_learning_rate: Floor = None
    max_learning_rate: PositiveFloat = REQUIRED
    total_steps: Steps[PositiveSteps] = REMAINING
    pct_start: Annotated[float, Interval(gt=0, lt=1)] = 0.3
    div_factor: PositiveFloat = 25.0
    final_div_factor: PositiveFloat = 1e4
    anneal_strategy: Literal["cos", "linear"] = "cos"
    three_phase: bool = False
    offset: Offset = 0

    def end(self) -> tuple[str, int]:
        return "total_steps", self.total_steps

    def _phases(self) -> tuple[list[float], list[float]]:
        """Returns the ends of the phases, with step 0 before them, and the rates there."""
        top = self.max_learning_rate
        first = top / self.div_factor
        last = first / self.final_div_factor
        peak = self.pct_start * self.total_steps - 1.0
        if self.three_phase:
            return [0.0, peak, 2 * peak, self.total_steps - 1.0], [first, top, first, last]
        return [0.0, peak, self.total_steps - 1.0], [first, top, last]

    def check(self) -> Iterator[tuple[str, str]]:
        if self.total_steps < 2:
            yield "total_steps", f"must be > 1, got {self.total_steps}"
            return
        ends, _ = self._phases()
        least = 1 / self.total_steps
        if ends[1] <= 0:
            yield "pct_start", f"must be > 1 / `total_steps`, {least:g}, got {self.pct_start!r}"
        elif ends[-2] >= ends[-1]:
            message = f"must leave steps for the last of the phases, got {self.pct_start!r}"
            yield "pct_start", message

    def value(self, step: Array, xp: Namespace) -> Array:
        ends, rates = self._phases()
        lengths = [end - start for start, end in pairwise(ends)]
        rises = [start - end for start, end in pairwise(rates)]
        tables = [ends[1:], lengths, rises, rates[1:]]
        end, length, rise, target = lookup(step, ends[1:-1], tables, "left", xp)
        remaining = xp.maximum(end - step, 0.0) / length
        if self.anneal_strategy == "cos":
            remaining = half_cosine(remaining, xp)
        return target + rise * remaining
