"""A learning rate made of others, one after the other."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from optimization.configs.durations import TrainingLength, durations, unknown_lengths, with_length
from optimization.configs.errors import Problem
from optimization.configs.fields import Sections, Steps, field
from optimization.configs.types import REQUIRED, Offset, PositiveSteps
from optimization.schedules.base import Array, BaseLrConfig, Namespace, ScopeName
from optimization.schedules.compose import are_ours, checked_values, rate_at
from optimization.schedules.metric import MetricLrConfig
from optimization.schedules.registry import LR_CLS, LrConfig

_FIRST = "initial_learning_rate"  # what a joined phase may leave out


class PhaseConfig(LrConfig):
    """One phase of a `sequence`: a learning rate, chosen as `learning_rate` is, and its end.

    >>> PhaseConfig(until="10%", type="constant", constant={"learning_rate": 0.5}).get()
    ConstantLrConfig(learning_rate=0.5)

    Attributes:
        until: The step of the sequence at which the phase ends: the first of the next phase. The
            last phase may leave it out, and then goes on; else the rate stays what it is there.
        join: Whether the phase starts from the rate at which the one before ended: its rates are
            multiplied by what makes its first value that. An `initial_learning_rate` that is left
            out is that rate. Without it the phase has the rates that are written.
        type: The name of the selected branch.
    """

    _OWN: ClassVar[tuple[str, ...]] = ("until", "join", "type")

    until: Steps[PositiveSteps | None] = field(default=None)
    join: bool = False

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings; the first rate of a joined phase need not be given."""
        problems, doubts = super().problems()
        if self.join and self.type is not None:
            first = self.get()._join(_FIRST)
            problems = [p for p in problems if (p.code, p.path) != ("missing", first)]
        return problems, doubts

    def check(self) -> Iterator[tuple[str, str]]:
        rate = self.get()
        if rate is None:
            if not self.untyped_branches():
                types = ", ".join(self.branches())
                yield "type", f"a type is required, none was given; the types are {types}"
        elif rate.keras_class is not None:
            message = "is a class of Keras, which no phase can be: register its formula"
            yield "type", f"`{self.type}` {message}"
        elif isinstance(rate, MetricLrConfig):
            yield "type", f"`{self.type}` follows a metric, as only the learning rate of all can"


class Piece(NamedTuple):
    """A phase, ready to be computed.

    Attributes:
        start: Its first step, counted from the start of the sequence.
        stop: The first step that is no longer its own; None if it goes on.
        rate: Its learning rate, with steps as numbers.
        factor: What the rate is multiplied with.
    """

    start: int
    stop: int | None
    rate: BaseLrConfig
    factor: float

    def at(self, step: Array, xp: Namespace) -> Array:
        """Returns the rate at steps of the sequence; past an end it stays what it is there."""
        done = xp.maximum(step - self.start, 0.0)
        if self.stop is not None:
            done = xp.minimum(done, float(self.stop - self.start))
        value = rate_at(self.rate, done, xp)
        value = xp.full_like(done, value) if isinstance(value, int | float) else value
        return value if self.factor == 1 else self.factor * value

    def last(self) -> float:
        """Returns the rate at its end."""
        steps = 0 if self.stop is None else self.stop - self.start
        return self.factor * checked_values(self.rate, None, [steps])[0]


@dataclasses.dataclass(frozen=True)
class _Kept:
    """Pieces that a read-only config keeps; no list, whose configs would be its children."""

    pieces: list[Piece]


@LR_CLS.register("sequence")
class SequenceLrConfig(BaseLrConfig):
    """Has one learning rate after the other: phases of any types, each with its end.

        lr(s) = rate_i(s - start_i)  for start_i <= s < until_i

    with start_0 = 0, and then start_i = until_(i - 1). Each phase counts from its start, and a
    length in it that is left out lasts to its end. The step `until` is the first of the next phase,
    as in PyTorch's SequentialLR and optax's join_schedules (at a boundary of `stepwise`, which is
    Keras', the value before it still holds). After the `until` of the last phase the rate stays
    what it is there; a last phase without one goes on. A phase with `join` starts from the rate at
    which the one before ended.

    >>> rate = SequenceLrConfig(phases=[
    ...     {"until": 80, "type": "constant", "constant": {"learning_rate": 1.0}},
    ...     {"until": 100, "type": "linear", "join": True},
    ... ])
    >>> curve(rate, None, [0, 79, 80, 90, 100, 400]).round(4)
    array([1. , 1. , 1. , 0.5, 0. , 0. ])

    Source: as in PyTorch's SequentialLR; `join` is our own.

    Attributes:
        phases: The phases, in their order; all but the last have an `until`.
        offset: The optimizer step at which the sequence starts; every `until` counts from there.
    """

    name: ScopeName = "Sequence"
    phases: Sections[PhaseConfig] = REQUIRED
    offset: Offset = 0

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.phases:
            yield "phases", "must have at least one phase"
        elif self.phases[0].join:
            yield "phases[0].join", "must be false: no phase comes before the first"
        before = 0
        for number, phase in enumerate(self.phases):
            end: Any = phase.until
            if end is None and number < len(self.phases) - 1:
                yield f"phases[{number}].until", "is required of all phases but the last"
            elif type(end) is int and end <= before:
                message = f"must be above the end of the phase before, {before}, got {end}"
                yield f"phases[{number}].until", message
            before = end if type(end) is int else before

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings, those of joints included."""
        problems, doubts = super().problems()
        if not problems and self.phases is not REQUIRED and not unknown_lengths(self):
            problems += self._joint_problems()
        return problems, doubts

    def _joint_problems(self) -> Iterator[Problem]:
        """Yields where no factor leads from one phase to the next, and what that makes wrong."""
        try:
            pieces = self.pieces()
        except Exception:  # of a formula that NumPy does not compute: see `RateCurve.failure`
            if are_ours(self, None):
                raise
            return
        for number, piece in enumerate(pieces):
            if not self.phases[number].join:
                continue
            last, place = pieces[number - 1].last(), f"phases[{number}].join"
            if last == 0:
                message = "cannot be true: the phase before ends at a rate of 0, which stays 0"
                yield self._problem("conflict", place, message)
            elif piece.factor == 0:
                message = (
                    f"cannot be true: the phase starts from 0, of which no factor makes {last:g}"
                )
                yield self._problem("conflict", place, message)
            elif getattr(self.phases[number].get(), _FIRST, None) is REQUIRED:
                yield from piece.rate.problems()[0]

    def pieces(self) -> list[Piece]:
        """Returns the phases, ready to be computed; a read-only config makes them once."""
        if not self._locked:
            return self.fixed().pieces()
        if "_kept" not in self.__dict__:
            self.__dict__["_kept"] = _Kept(self._pieces())
        return self.__dict__["_kept"].pieces

    def fixed(self) -> "SequenceLrConfig":
        if self._locked:
            return self
        twin = self.replace()
        twin.lock()
        return twin

    def _pieces(self) -> list[Piece]:
        sized = self
        if any(durations(self)):
            sized, _ = with_length(self, TrainingLength())
            sized.lock()  # so that a sequence inside of it keeps its own
        pieces: list[Piece] = []
        start = 0
        for phase in sized.phases:
            rate, factor = phase.get(), 1.0
            if phase.join and pieces:
                rate, factor = _joined(rate, pieces[-1].last())
            pieces.append(Piece(start, phase.until, rate, factor))
            start = phase.until or start
        return pieces

    def _set_locked(self, locked: bool) -> None:
        super()._set_locked(locked)
        self.__dict__.pop("_kept", None)

    def end(self) -> tuple[str, int] | None:
        last = self.pieces()[-1]
        number, found = len(self.phases) - 1, last.rate.end()
        place = f"phases[{number}]"
        if found is not None:
            name, steps = found
            step = last.start + last.rate.offset + steps
            if last.stop is None or step < last.stop:
                return f"{place}.{self.phases[number].type}.{name}", step
        return None if last.stop is None else (f"{place}.until", last.stop)

    def warmup_conflicts(self) -> Iterator[tuple[str, str]]:
        first = self.phases[0].get() if self.phases else None
        for name, message in () if first is None else first.warmup_conflicts():
            yield f"phases[0].{self.phases[0].type}.{name}", message

    def value(self, step: Array, xp: Namespace) -> Array:
        first, *others = self.pieces()
        value = first.at(step, xp)
        for piece in others:
            value = xp.where(step < piece.start, value, piece.at(step, xp))
        return value


def _joined(rate: BaseLrConfig, last: float) -> tuple[BaseLrConfig, float]:
    """Returns a rate and the factor by which it starts from the rate `last`; 0 if none does."""
    if getattr(rate, _FIRST, None) is REQUIRED:
        rate = copy.copy(rate)
        rate.__dict__[_FIRST] = last
    first = checked_values(rate, None, [0])[0]
    return rate, last / first if first else 0.0
