"""Finds the curves that a config has: its learning rates, and what else follows the steps."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from optimization.configs.auxiliary_groups import Group
from optimization.configs.durations import durations
from optimization.configs.errors import ConfigError, Origin, Problem, nearest_or_all
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import RateCurve
from optimization.matching.rules import DEFAULT
from optimization.plots.points import Function
from optimization.rules.base import ALL_CLIPS
from optimization.schedules.averages import AverageDecay
from optimization.schedules.compose import are_ours, schedule_problems
from optimization.schedules.constant import ConstantLrConfig
from optimization.schedules.metric import MetricLrConfig
from optimization.schedules.scalars import SCALARS
from optimization.schedules.steps import steps_around

LEARNING_RATE = "learning_rate"
MICRO_BATCHES = "micro_batches"
ALL = "all"  # groups
_LAYERS = ("layer L", *(f"layer L-{below}" for below in (1, 2, 4, 8, 16)))  # of `all`
_LAYER = re.compile(r"layer L(?:-(\d+))?")
_CONSTANT, _ENDLESS = 100, 100_000  # steps, of what says no number of them


class Mark(NamedTuple):
    """Says what happens to a curve at a step."""

    step: int
    text: str


class Line(NamedTuple):
    """A curve that is not drawn yet."""

    name: str  # of the group, "" where none was asked for
    function: Function
    steps: list[int]  # at which it may bend, with the ones before and after
    marks: list[Mark]
    last: int  # the last step to draw
    has_end: bool  # whether that is where it ends, or it goes on in the same way
    notes: Sequence[str] = ()


def lines_of(
    config: OptimizationConfig, what: str = LEARNING_RATE, groups: Sequence[str] = ()
) -> list[Line]:
    """Returns the curves of a config, whose steps are numbers as far as they are known.

    Args:
        config: The config.
        what: `learning_rate`, a number of the optimizer that may follow a schedule, the decay of
            the average, or `micro_batches`.
        groups: Labels of `param_groups`, `default` for the variables of none, `layer L-2` for those
            two layers below the head, `all`; none for `default`.

    Raises:
        ConfigError: If there is no such group or number, or nothing to draw.
    """
    lines: dict[str, Line] = {}
    for name in groups or [""]:
        parts = list(_parts(config, name))
        parts = [part for part in parts if part.has(what)] or parts
        lines |= {part.name: part.line(what) for part in parts}
    return list(lines.values())


def line_of_rate(curve: RateCurve, name: str = "", train_steps: int | None = None) -> Line:
    """Returns the line of a learning rate with all that acts on it.

    Raises:
        ConfigError: If it is not complete and right, or its formula fails.
    """
    problems = schedule_problems(curve.learning_rate, curve.warmup)
    if problems:
        raise ConfigError(problems)
    last = train_steps or _last_bend(curve)
    steps = [step for step in curve.steps(last + 1) if step <= last]
    is_constant = curve.warmup is None and curve.learning_rate.constant_value() is not None
    has_end = bool(train_steps) or is_constant
    marks, notes = list(_marks(curve, train_steps)), []
    if isinstance(curve.learning_rate, MetricLrConfig):
        notes = [f"it follows `{curve.learning_rate.metric}`: only where it starts is known before"]
    return Line(name, _told(curve), steps, marks, last, has_end, notes)


def _told(curve: RateCurve) -> Function:
    """Returns the curve as a function that says in words why a formula fails."""

    def values(steps: list[int]) -> list[float]:
        try:
            return curve.values(steps)
        except Exception as error:
            words = str(error).strip().partition("\n")[0]
            message = f"its formula fails: {type(error).__name__}: {words}"
            raise _refused(curve.learning_rate, message) from error

    return values


class _Part(NamedTuple):
    """The variables of a config that share a curve."""

    config: OptimizationConfig
    name: str
    group: Group | None = None
    layers_below: int = 0  # the head

    @property
    def section(self) -> Any:
        """The section of the optimizer that updates them."""
        own = None if self.group is None else self.group.optimizer.get()
        return own or self.config.optimizer.get()

    def has(self, what: str) -> bool:
        section = self.section
        if what == LEARNING_RATE or (section and what == self.config.average_decay_name):
            return True
        if what == MICRO_BATCHES:
            return True
        return (section and section.argument_name(what)) is not None

    def line(self, what: str) -> Line:
        if self.group is not None and self.group.freeze:
            raise _refused(self.group, "is frozen: nothing is updated")
        if what == MICRO_BATCHES:
            return self._micro_batches()
        return self._rate() if what == LEARNING_RATE else self._number(what)

    def _micro_batches(self) -> Line:
        config, train_steps = self.config, self.config._train_steps
        if config.accumulation is None:
            message = "is not set: there is no number of micro-batches that grows"
            raise ConfigError([config._problem("missing", "accumulation", message)])
        if any(durations(config.accumulation)):
            raise _refused(config.accumulation, "its steps are no numbers: give the lengths")
        ramp = config.accumulation.ramp()
        last = train_steps or 2 * max(*ramp.boundaries, 1)
        return Line(
            self.name,
            lambda steps: [float(ramp.at(step)) for step in steps],
            steps_around({0, *ramp.boundaries}, last, parts=1),
            [*(Mark(step, "boundary") for step in ramp.boundaries), *_ends(train_steps)],
            last,
            has_end=bool(train_steps),
        )

    def _rate(self) -> Line:
        config = self.config
        own = config.learning_rate_of(self.group)
        place = self.group if self.group is not None and own is not None else config
        found = own if own is not None else config.learning_rate_of(None)
        if found is None:
            message = "is not set: there is no learning rate to draw"
            raise ConfigError([config.learning_rate._problem("missing", "type", message)])
        rate, warmup = found
        optimizer = place.optimizer.get()
        makes_rate = optimizer is not None and optimizer.own_learning_rate() is not None
        factor = self._multiplier()
        notes: list[str] = []
        if config.lr_scaling is not None and not makes_rate:
            if config.lr_scaling.global_batch_size:
                factor *= config.lr_scaling.factor()
            else:
                notes.append("`global_batch_size` is not known: drawn without `lr_scaling`")
        decay = self.section.pipeline_arguments().get("decay", 0.0) if self.section else 0.0
        start = 0 if makes_rate else config._schedule_start  # its own clock goes on
        warmup = warmup if warmup and warmup.warmup_steps else None
        curve = RateCurve(rate, warmup, factor, decay, start)
        line = line_of_rate(curve, self.name, config._train_steps)
        return line._replace(notes=[*line.notes, *notes])

    def _multiplier(self) -> float:
        if self.group is not None:
            return self.group.learning_rate_multiplier
        decay = self.config.layer_decay
        return max(decay.rate**self.layers_below, decay.min_multiplier) if decay else 1.0

    def _number(self, what: str) -> Line:
        config, section = self.config, self.section
        if section is None:
            message = "is not set in this file: there is no optimizer"
            raise ConfigError([config.optimizer._problem("missing", "type", message)])
        if what == config.average_decay_name:
            return self._average()
        argument = section.argument_name(what)
        if argument is None:
            known = [LEARNING_RATE, *section.numbers(), *section.clips()]
            near = nearest_or_all(what, known)
            raise _refused(section, f"there is no number {what!r} that may change{near}")
        if argument in section.own_schedules():
            return self._own(argument)
        is_decay = argument == section.argument_name("weight_decay")
        value = {**section.pipeline_arguments(), **section.arguments()}.get(argument)
        replaced = self._replaced(argument, is_decay)
        if argument in ALL_CLIPS and replaced is None:  # which are of the whole step
            value = getattr(config.optimizer.get(), argument, None)
        scheduled = config.number_schedules().items()
        schedules = {section.argument_name(name): rate for name, rate in scheduled}
        if replaced is None and value and argument in schedules:
            rate = schedules[argument].get()
        elif value is None and replaced is None and not is_decay:
            message = "is not set: there is nothing to draw"
            raise ConfigError([section._problem("missing", argument, message)])
        else:
            number = value if replaced is None else replaced
            rate = ConstantLrConfig(learning_rate=number or 0.0)
        curve = RateCurve(rate, start=config._schedule_start)
        return line_of_rate(curve, self.name, config._train_steps)

    def _average(self) -> Line:
        """Returns the line of the decay of the average, by the updates done before."""
        config, rate = self.config, self.config.average_schedule()
        if config.ema is not None and any(durations(config.ema)):
            message = "is not drawn before its steps are numbers: give `train_steps`"
            raise _refused(config.ema, f"the decay of the average {message}")
        decay = AverageDecay.of(config.average_arguments() or {})
        bends = {0, decay.start_step, decay.rise_steps or 0}
        if rate is not None:
            curve = RateCurve(rate, start=config._schedule_start)
            decay.average_decay = lambda done: curve.values([done])[0]
            bends |= set(curve.steps(config._train_steps))
        last = config._train_steps or max(*bends, _CONSTANT) * 2

        def values(steps: list[int]) -> list[float]:
            start = decay.start_step
            return [1 - decay.moved_share(s + 1, s + 1 - start, SCALARS) for s in steps]

        steps, ends = steps_around(bends, last, parts=32), [*_ends(config._train_steps)]
        return Line(self.name, values, steps, ends, last, has_end=bool(config._train_steps))

    def _replaced(self, argument: str, is_decay: bool) -> float | None:
        """Returns what the group has in the place of a number of the optimizer's."""
        if self.group is None:
            return None
        kind, bound = self.group.own_clip() or ("", 0.0)
        if kind and argument in ALL_CLIPS:
            return bound if kind == argument else 0.0
        return self.group.weight_decay if is_decay else None

    def _own(self, argument: str) -> Line:
        """Returns the line of a number that the optimizer's section changes by itself."""
        formula = self.section.drawn_curves()[argument]
        length = getattr(self.section, self.section.own_schedules()[argument])
        train_steps = self.config._train_steps
        last = train_steps or 2 * length
        return Line(
            self.name,
            lambda steps: [float(formula(float(step), SCALARS)) for step in steps],
            steps_around({0, length}, last, parts=32),
            [Mark(length, "warmup ends"), *_ends(train_steps)],
            last,
            has_end=bool(train_steps),
        )


def _parts(config: OptimizationConfig, name: str) -> Iterator[_Part]:
    """Yields what a name of groups means; "" is the default one."""
    by_label = {group.label: group for group in config.groups()}
    layer = _LAYER.fullmatch(name)
    if name in ("", DEFAULT):
        yield _Part(config, name)
    elif name in by_label:
        yield _Part(config, name, by_label[name])
    elif layer and config.layer_decay is not None:
        yield _Part(config, name, layers_below=int(layer[1] or 0))
    elif name == ALL:
        for part in _LAYERS if config.layer_decay is not None else (DEFAULT,):
            yield from _parts(config, part)
        yield from (_Part(config, n, g) for n, g in by_label.items() if not g.freeze)
    else:
        layers = _LAYERS[:2] if config.layer_decay is not None else ()
        near = nearest_or_all(name, [DEFAULT, ALL, *layers, *by_label])
        raise _refused(config, f"there is no group {name!r}{near}")


def _last_bend(curve: RateCurve) -> int:
    """Returns as far as a rate is drawn whose training is of unknown length.

    That is a little past its last bend. A rate without an end is drawn on: until it has fallen to
    a tenth, or for some of its periods.
    """
    last, end = curve.steps()[-1] - 1, curve.end()
    if end is not None:
        last = max(end[1], curve.warmup_length()[2])
    elif last > 1 and not getattr(curve.learning_rate, "boundaries", ()):
        farther = [4 * last * 2**power for power in range(9)]
        last = farther[0]
        if are_ours(curve.learning_rate, curve.warmup):  # others need not go on
            low_rate = max(curve.values(curve.steps())) / 10
            rates = zip(farther, curve.values(farther), strict=True)
            low = (step for step, rate in rates if rate < low_rate)
            last = next(low, last)
    if last <= 1:
        return _ENDLESS if curve.learning_rate.constant_value() is None else _CONSTANT
    return last + max(last // 20, 1)


def _marks(curve: RateCurve, train_steps: int | None) -> Iterator[Mark]:
    rate, end = curve.learning_rate, curve.end()
    if curve.start:
        yield Mark(curve.start, "schedule starts")
    if length := curve.warmup_length()[2]:
        yield Mark(curve.start + length, "warmup ends")
    boundaries = getattr(rate, "boundaries", ())
    for boundary in boundaries if isinstance(boundaries, tuple) else ():
        yield Mark(int(boundary) + curve.shift, "boundary")
    for piece in curve.phases()[1:]:
        yield Mark(piece.start + curve.shift, "boundary")
    if isinstance(stable := getattr(rate, "stable_steps", None), int):
        yield Mark(stable + curve.shift, "decay starts")
    if end is not None and isinstance(decay := getattr(rate, "num_decay_steps", None), int):
        yield Mark(end[1] - decay, "decay starts")
    if end is not None and end[0] != "boundaries" and end[1] != train_steps:
        yield Mark(end[1], "decay ends")
    yield from _ends(train_steps)


def _ends(train_steps: int | None) -> Iterator[Mark]:
    if train_steps:
        yield Mark(train_steps, "training ends")


def _refused(section: Any, message: str) -> ConfigError:
    origin: Origin | None = next(iter(section._origins.values()), None)
    named = None if origin is None or origin.line is None else origin
    return ConfigError([Problem("value", section._path, message, named)])
