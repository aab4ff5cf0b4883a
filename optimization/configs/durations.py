"""Turns epochs, shares and remainders of a training into numbers of optimizer steps."""

import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar, cast

from optimization.configs.base import Config
from optimization.configs.errors import Problem
from optimization.configs.planning import Change, Plan
from optimization.configs.ramp import AccumulationConfig, Ramp
from optimization.configs.tree import Node
from optimization.configs.types import REQUIRED, Duration, is_pending

ConfigT = TypeVar("ConfigT", bound=Config)

_SCALES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


_LATER = ("per", "num_stable_steps", "num_decay_steps")
"""Fields that are lengths, but not from where a schedule's steps begin."""


class TrainingLength(NamedTuple):
    """Says how long is trained, and one pass over the data, in optimizer steps; None: unknown.

    `global_batch_size` and `tokens_per_step` are the examples and the tokens of an update, over all
    replicas and all accumulated gradients.

    The schedules of a run that was resumed may `start` later than it did, or be at their `end`
    before or after it is; None for the end of the training.

    Where a config's `accumulation` grows, what is of an update or a step here is of a micro-batch.
    """

    train_steps: int | None = None
    steps_per_epoch: int | None = None
    start: int = 0
    end: int | None = None
    global_batch_size: int | None = None
    tokens_per_step: int | None = None

    @property
    def last(self) -> int | None:
        """The step at which the schedules end."""
        return self.end or self.train_steps

    @property
    def of_schedules(self) -> int | None:
        """The steps in which the schedules run, of which shares of them are taken."""
        return self.last and self.last - self.start


def with_length(config: ConfigT, length: TrainingLength) -> tuple[ConfigT, list[Problem]]:
    """Returns a copy, not locked, in which steps are numbers, and what cannot be made a number.

    "5 epochs" are 5 * `steps_per_epoch` steps, "10%" a tenth of `train_steps`, "1M examples" a
    million / `global_batch_size`, "1B tokens" a billion / `tokens_per_step`, each rounded to the
    nearest step; the fields that a config lists in `rounds_up` are rounded up. With `accumulation`
    they are the steps in which so much is seen, from where they are counted. In a learning rate
    or a warmup a share is one of the steps from `start` to `end`. "remaining", in a
    learning rate, is what is left of `train_steps` after its `offset`, after the warmup if that
    delays it, and after `stable_steps`; in a phase of a sequence, what is left of the phase.
    """
    twin = config.replace()
    sizing = _Sizing(length, [])
    accumulation = twin.__dict__.get("accumulation")
    if isinstance(accumulation, AccumulationConfig):
        sizing = sizing._replace(ramp=sizing.ramp_of(accumulation))
    sizing.fill_in(twin, None)
    return twin, sizing.problems


def unknown_lengths(config: Config) -> list[Problem]:
    """Returns a problem for each duration in `config` that needs the length of the training."""
    if not any(durations(config)):
        return []
    return with_length(config, TrainingLength())[1]


def shares(config: Config) -> Iterator[str]:
    """Yields the path of each value that is written as a share of the training, such as "10%"."""
    return (path for path, value in durations(config) if re.search("%|remaining", repr(value)))


def durations(config: Node) -> Iterator[tuple[str, Any]]:
    """Yields the path and the value of each field that needs a length to be a number."""
    for name, value in config._items():
        if is_pending(value):
            yield config._join(name), value
    for child in config.selected():
        yield from durations(child)


class _Sizing(NamedTuple):
    """Makes durations numbers by a length, and collects the `problems` of those that cannot be.

    With a `ramp`, data are counted from where a config's steps begin, if that is known.
    """

    length: TrainingLength
    problems: list[Problem]
    ramp: Ramp | None = None
    begins: int | None = 0

    def ramp_of(self, config: AccumulationConfig) -> Ramp | None:
        """Makes the steps of `accumulation` numbers; returns None where something is wrong."""
        if config.micro_batches is REQUIRED or any(config.check()):
            return None
        name = "boundaries" if config.until is None else "until"
        last = len(config.micro_batches) - 1
        try:
            if config.until is None:
                places = [self._place(value) for value in config.boundaries]
            else:
                whole = self._place(config.until)
                parts = [whole * Fraction(i, last) for i in range(1, last + 1)]
                in_steps = isinstance(whole, int)
                places = [math.ceil(part) if in_steps else part for part in parts]
            begins = config.by_data(places)
        except ValueError as error:
            message = f"{getattr(config, name)!r} {error}"
            self.problems.append(config._problem("missing", name, message))
            return None
        config.__dict__.update(boundaries=begins, until=None)
        return config.ramp()

    def _place(self, value: Any) -> int | Fraction:
        """Returns steps, or micro-batches of which it is not known in how many steps they are."""
        form = Duration.FORM.fullmatch(value) if isinstance(value, Duration) else None
        if form is None or not (form["epochs"] or form["count"]):
            return self._number(value, None, math.ceil)
        return self._micro_batches(form)

    def fill_in(self, config: Node, remaining: int | None) -> None:
        """Makes the durations of a config and of all below numbers; `remaining` is one of its."""
        # What "remaining" leaves out is to be a number before: a warmup, and other fields.
        warmup, rate_of_all = (config.__dict__.get(name) for name in ("warmup", "learning_rate"))
        start: int | None = 0  # of a phase, one after the other
        for child in sorted(config.selected(), key=lambda child: child is not warmup):
            kind = getattr(getattr(child, "registry", None), "kind", "")
            if isinstance(child, AccumulationConfig):
                continue  # its steps were the first to be numbers, or are told
            if kind == "learning rate":
                own_warmup = warmup.get() if warmup and child is rate_of_all else None
                steps, sizing = self.length.of_schedules, self._of_schedules
                if "until" in child.__dict__:
                    end = sizing._end_of_phase(child, remaining)
                    steps = None if start is None or end is None else end - start
                    sizing, start = sizing._later(start), end
                for rate in child.selected():
                    own = sizing._later(_delay(own_warmup))._later(getattr(rate, "offset", 0))
                    own.fill_in(rate, self._steps_left(rate, own_warmup, steps))
            else:
                (self._of_schedules if kind == "warmup" else self).fill_in(child, None)
        names = [name for name, value in config._items() if is_pending(value)]
        for name in sorted(names, key=lambda name: config.__dict__[name] == "remaining"):
            self._set_steps(config, name, remaining)

    @property
    def _of_schedules(self) -> "_Sizing":
        length = self.length._replace(train_steps=self.length.of_schedules, start=0, end=None)
        return self._replace(length=length)._later(self.length.start)

    def _later(self, steps: int | None) -> "_Sizing":
        """Returns the same for what begins some steps later, None where they are not known."""
        if steps is None or self.begins is None:
            return self._replace(begins=None)
        return self._replace(begins=self.begins + steps)

    def _end_of_phase(self, phase: Node, remaining: int | None) -> int | None:
        """Returns where a phase of a sequence ends; the last one may end with the sequence."""
        if is_pending(phase.__dict__["until"]):
            self._set_steps(phase, "until", remaining)
        end: Any = phase.__dict__["until"]
        return remaining if end is None else end if isinstance(end, int) else None

    def _steps_left(self, rate: Node, warmup: Any, steps: int | None) -> int | None:
        if steps is None:
            return None
        steps -= getattr(rate, "offset", 0)
        return steps - (_delay(warmup) or 0)

    def _set_steps(self, config: Node, name: str, remaining: int | None) -> None:
        value: Any = getattr(config, name)
        stable = config.__dict__.get("stable_steps", 0)
        if remaining is not None and isinstance(stable, int):
            remaining -= stable
        rounded = math.ceil if name in getattr(type(config), "rounds_up", ()) else round
        items = value if isinstance(value, tuple) else (value,)
        sizing = self
        if name in _LATER:
            sizing = self._replace(begins=None)
        elif name != "stable_steps":
            sizing = self._later(stable if isinstance(stable, int) else None)
        try:
            numbers = [sizing._number(item, remaining, rounded) for item in items]
        except ValueError as error:
            self.problems.append(config._problem("missing", name, f"{value!r} {error}"))
            return
        steps = numbers if isinstance(value, tuple) else numbers[0]
        plan = Plan()
        plan.set(Change(config, name, steps, config._origin_near(name)))
        self.problems.extend(p._replace(message=f"{value!r}: {p.message}") for p in plan.problems)
        plan.commit()

    def _number(self, value: Any, remaining: int | None, rounded: Callable[[Any], int]) -> Any:
        if not isinstance(value, Duration):
            return value
        form = cast(re.Match[str], value.FORM.fullmatch(value))  # a duration has it
        if value == "remaining" and remaining is not None:
            return remaining
        what = self._taken(form)
        if self.ramp is not None and not form["percent"]:
            if self.begins is None:
                raise ValueError(
                    "is a number of steps that `accumulation` changes, and here it is not known "
                    "which steps are meant: write a number of steps"
                )
            return self.ramp.length(self.begins, self._micro_batches(form), rounded)
        if form["epochs"]:
            return rounded(float(form["epochs"]) * what)
        if form["percent"]:
            # By the float that "0.07" is, as whoever writes a share as a fraction has it.
            return rounded(float(Decimal(form["percent"]) / 100) * what)
        if form["count"]:
            return rounded(Decimal(form["count"]) * _SCALES[form["scale"]] / what)
        raise ValueError("means something in a learning rate only")

    def _micro_batches(self, form: re.Match[str]) -> Fraction:
        """Returns in how many micro-batches so much data is."""
        what = self._taken(form)
        if form["epochs"]:
            return Fraction(form["epochs"]) * what
        return Fraction(form["count"]) * _SCALES[form["scale"]] / what

    def _taken(self, form: re.Match[str]) -> int:
        """Returns what makes a number of a duration; a ValueError names what is not known."""
        name, value = "train_steps", self.length.last
        if form["epochs"]:
            name, value = "steps_per_epoch", self.length.steps_per_epoch
        elif form["count"]:
            name = "tokens_per_step" if form["unit"].startswith("token") else "global_batch_size"
            value = getattr(self.length, name)
        if value is None:
            raise ValueError(f"takes `{name}`, which is not known: give it, or write a number")
        return value


def _delay(warmup: Any) -> int | None:
    """Returns by how many steps a warmup has its learning rate start later; None if not known."""
    if getattr(warmup, "mode", None) != "delay":
        return 0
    return warmup.warmup_steps if isinstance(warmup.warmup_steps, int) else None
