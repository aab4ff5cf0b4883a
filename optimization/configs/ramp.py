"""Accumulation that grows as the training goes on: how many micro-batches each update is of."""

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, NamedTuple

from optimization.configs.base import Config
from optimization.configs.fields import Steps, field
from optimization.configs.types import REQUIRED, Boundaries, FirstSteps, PositiveInt, Unit

_NUMBERS: Any = SimpleNamespace(
    maximum=max, where=lambda condition, yes, no: yes if condition else no
)
"""The functions of a `Ramp` for one step, an integer."""


class Ramp(NamedTuple):
    """The micro-batches of each update: `counts[i]` from step `boundaries[i - 1]` on.

    >>> ramp = Ramp((1, 4), (10,))
    >>> ramp.at(9), ramp.at(10), ramp.before(12)
    (1, 4, 18)
    """

    counts: tuple[int, ...] = (1,)
    boundaries: tuple[int, ...] = ()

    def at(self, step: Any, xp: Any = _NUMBERS) -> Any:
        """Returns how many micro-batches the update after `step` updates is of."""
        count: Any = self.counts[0]
        for boundary, more in self._bends():
            count = count + xp.where(step >= boundary, more, 0)
        return count

    def before(self, step: Any, xp: Any = _NUMBERS) -> Any:
        """Returns the micro-batches of the first `step` updates, which is the next one's number."""
        total = self.counts[0] * step
        for boundary, more in self._bends():
            total = total + more * xp.maximum(step - boundary, 0)
        return total

    def length(self, start: int, amount: Fraction, rounded: Callable[[Any], int]) -> int:
        """Returns the number of updates from `start` on in which `amount` micro-batches are."""
        total = self.before(start) + amount
        begins = [0, *self.boundaries]
        place = max(i for i, step in enumerate(begins) if i == 0 or self.before(step) <= total)
        rest = (total - self.before(begins[place])) / self.counts[place]
        return begins[place] + rounded(rest) - start

    def _bends(self) -> Iterator[tuple[int, int]]:
        rises = (after - before for before, after in pairwise(self.counts))
        return zip(self.boundaries, rises, strict=True)


class AccumulationConfig(Config):
    """Accumulates more micro-batches as the training goes on, so that the batch grows.

    Update s, counted from 0, is of `micro_batches[i]` micro-batches, of as many `boundaries` as are
    at most s. All else counts updates: rates, schedules, averages, summaries.

    What is known of the data is then that of a micro-batch: `global_batch_size`, `tokens_per_step`
    and `steps_per_epoch` of the trainer and of factories count micro-batches. Lengths in epochs,
    examples and tokens are the updates in which so much is seen.

    >>> AccumulationConfig(micro_batches=[1, 2, 4], boundaries=[100, 200]).ramp().at(150)
    2

    Attributes:
        micro_batches: How many micro-batches an update is of, phase by phase; each >= 1.
        boundaries: The update at which each phase but the first begins: the first one by which so
            much was seen, where it is in examples, tokens or epochs.
        until: In the place of `boundaries`: where the last phase begins. Those between are as far
            from each other, in the unit of this, as in a batch that grows linearly.
    """

    rounds_up: ClassVar[tuple[str, ...]] = ("boundaries", "until")
    _MAIN: ClassVar[str] = "micro_batches"

    micro_batches: tuple[Annotated[PositiveInt, Unit("micro-batches")], ...] = REQUIRED
    boundaries: Steps[Boundaries] = field(default=())
    until: Steps[FirstSteps | None] = field(default=None)

    def check(self) -> Iterator[tuple[str, str]]:
        phases = len(self.micro_batches)
        if phases < 2:
            message = "must hold two numbers or more, one for each phase"
            yield "micro_batches", f"{message}; `gradient_accumulation_steps` is one for all"
        elif self.until is None and len(self.boundaries) != phases - 1:
            message = f"must hold {phases - 1}, one less than the {phases} of `micro_batches`"
            yield "boundaries", f"{message}, got {len(self.boundaries)}"
        elif self.until is not None and self.boundaries:
            yield "until", "cannot be set beside `boundaries`, which say it too: use one"
        elif isinstance(self.until, int) and self.until < phases - 1:
            message = f"must be >= {phases - 1}, an update for each phase but the last"
            yield "until", f"{message}, got {self.until}"

    def ramp(self) -> Ramp:
        """Returns what it means, where all steps are numbers."""
        return Ramp(self.micro_batches, self.boundaries)

    def by_data(self, places: Sequence[int | Fraction]) -> tuple[int, ...]:
        """Returns the boundaries at steps, and at those by which so many micro-batches were seen.

        Raises:
            ValueError: If a phase would not begin after the one before.
        """
        begins: list[int] = []
        for place in places:
            known = Ramp(self.micro_batches[: len(begins) + 1], tuple(begins))
            step = place if isinstance(place, int) else known.length(0, place, math.ceil)
            if begins and step <= begins[-1]:
                raise ValueError(f"has a phase begin at step {step} after one at {begins[-1]}")
            begins.append(step)
        return tuple(begins)
