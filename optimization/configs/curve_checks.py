"""Checks learning rates as curves: that they are finite, not 0, and reach what was asked for."""

import itertools
import math
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

from optimization.configs.auxiliary_groups import all_groups
from optimization.configs.base import Config
from optimization.configs.errors import Problem
from optimization.configs.float32 import in_float32
from optimization.configs.ramp import AccumulationConfig
from optimization.configs.rate_curve import (
    RateCurve,
    curve_of,
    places,
    schedule_free_sections,
    written,
)
from optimization.configs.types import REMAINING, PositiveFloat, check_value
from optimization.rules.base import ALL_CLIPS, BaseOptimizerConfig
from optimization.schedules.compose import are_ours, needs_keras, schedule_problems

if typing.TYPE_CHECKING:
    from optimization.configs.optimization_config import OptimizationConfig

_IS_RATE = re.compile(r"learning_rate$|^(max_|min_)?lr$|^lr_end$|^values$")
_LOW = 0.5  # a peak under this part of what was asked for is doubtful
_NEAR = 0.01  # a decay may miss the end of the training by this part of it


class _Seen(typing.NamedTuple):
    """A curve, looked at up to the end of the training, or as far as it bends."""

    curve: RateCurve
    train_steps: int | None
    steps: list[int]
    values: list[float]

    @classmethod
    def of(cls, curve: RateCurve, train_steps: int | None) -> "_Seen":
        steps = curve.steps(train_steps)
        return cls(curve, train_steps, steps, curve.values(steps))

    def first(self, index: int, is_so: Callable[[float], bool]) -> tuple[int, float]:
        """Returns the first step with a rate as that of `index`, if the step before has none."""
        step, value = self.steps[index], self.values[index]
        before = self.steps[index - 1] if index else step - 1
        while step - before > 1:
            middle = (step + before) // 2
            (between,) = self.curve.values([middle])
            if is_so(between):
                step, value = middle, between
            else:
                before = middle
        return step, value


def judge(config: "OptimizationConfig") -> tuple[list[Problem], list[Problem]]:
    """Returns what is wrong with a config's learning rates as curves, and what is doubtful.

    Up to the end of the training where that is known, else up to where they bend for the last
    time. What is not complete, or needs Keras to be computed, is left out.
    """
    problems: list[Problem] = []
    doubts: list[Problem] = []
    train_steps = config._train_steps
    for place in places(config):
        curve = curve_of(config, place)
        if curve is None:
            continue
        if not curve.is_computable(train_steps):
            doubts += _uncomputable(curve)
            continue
        seen = _Seen.of(curve, train_steps)
        found = list(_errors(seen))
        if place.learning_rate.untyped_branches() or place.warmup.untyped_branches():
            # The experiment, which has the types, may have other values too.
            doubts += [problem._replace(code="incomplete-rate") for problem in found]
        else:
            problems += found
        if not found:
            doubts += _doubts(seen, config._shares)
    if train_steps and config.accumulation is not None:
        doubts += _missed_phases(config.accumulation, train_steps)
    problems += _multipliers(config)
    problems = problems or list(_started_at_zero(config))
    return problems, [*doubts, *_schedule_free(config)]


def _uncomputable(curve: RateCurve) -> Iterator[Problem]:
    """Yields what is doubtful about a formula that fails at its start; it need not go on."""
    rate, warmup = curve.learning_rate, curve.warmup
    if schedule_problems(rate, warmup) or needs_keras(rate, warmup):
        return
    section = rate if warmup is None or not are_ours(rate, None) else warmup
    message = "its formula fails with NumPy, so that the rate is not checked"
    failure = curve.failure([0])
    if failure is not None:
        yield _problem("unchecked", section, None, f"{message}: {failure}")


def _errors(seen: _Seen) -> Iterator[Problem]:
    curve, train_steps, _, values = seen
    wrong = _first_wrong(seen)
    if wrong is not None:
        yield _problem("value", curve.learning_rate, None, f"the learning rate {wrong}")
    elif not any(map(in_float32, values)) and _asks_for_more(curve):
        try:
            far = [] if train_steps else curve.values(curve.steps(far=True))
        except Exception:  # of a formula that is not ours and does not go on
            return
        if not any(map(in_float32, far)):
            yield _zero(curve, train_steps)


def _first_wrong(seen: _Seen) -> str | None:
    """Says what is wrong with the first rate that is not finite, or negative; None if none is."""
    highest = max((v for v in seen.values if math.isfinite(v)), default=0.0)

    def is_wrong(value: float) -> bool:
        return not (math.isfinite(in_float32(value)) and value >= -1e-6 * highest)  # but rounding

    index = next((i for i, value in enumerate(seen.values) if is_wrong(value)), None)
    if index is None:
        return None
    step, value = seen.first(index, is_wrong)
    factor = seen.curve.factor
    needed = "be >= 0" if math.isfinite(in_float32(value)) else "be finite in float32"
    times = "" if factor == 1 else f", the factor {factor:g} included"
    return f"must {needed}, it is {value:g} at step {step}{times}"


def _asks_for_more(curve: RateCurve) -> bool:
    """Whether 0 is not the only rate that the config writes."""
    own = _rates(curve.learning_rate).values()
    start = _rates(curve.warmup).values() if curve.warmup else ()
    return bool(curve.factor) and (not own or any(map(any, [*own, *start])))


def _rates(section: Config) -> dict[str, tuple[float, ...]]:
    """Returns the fields that are rates; of a formula that has none by name, all real numbers."""
    values = {n: v if isinstance(v, tuple) else (v,) for n, v in section._items()}
    real = {n: v for n, v in values.items() if v and all(isinstance(x, float) for x in v)}
    return {n: v for n, v in real.items() if _IS_RATE.search(n)} or real


def _zero(curve: RateCurve, train_steps: int | None) -> Problem:
    always = "in every step" + (f" of {train_steps}" if train_steps else "")
    section, name, length = curve.warmup_length()
    if train_steps and 0 < train_steps <= curve.start + length:
        message = f"the learning rate is 0 {always}, which all belong to the warmup of {length}"
        return _problem("conflict", section, name, f"{message}; write fewer")
    bare = curve._replace(warmup=None)
    if curve.warmup is not None and any(map(in_float32, bare.values(bare.steps(train_steps)))):
        end = curve.end()
        over = "" if end is None else f": the decay is over at step {end[1]}"
        message = f"the learning rate is 0 {always}: the warmup leads to that of step {length}"
        advice = "write fewer steps, a longer decay, or `mode: delay`"
        return _problem("conflict", section, name, f"{message}, which is 0{over}; {advice}")
    parts = [part for part in (curve.learning_rate, curve.warmup) if part]
    rates = [(n, max(v)) for part in parts for n, v in _rates(part).items() if any(v)]
    rate, highest = rates[0] if rates else (None, 0.0)
    where = "in float32 " if rates and not in_float32(highest) else ""
    though = f", though this is {highest:g}" if rates else ""
    message = f"the learning rate is 0 {where}{always}{though}"
    return _problem("conflict", curve.learning_rate, rate, message)


def _multipliers(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields multipliers of the learning rate of all that make it infinite."""
    train_steps = config._train_steps
    of_all = curve_of(config, config)
    if of_all is None or not of_all.is_computable(train_steps):
        return
    for group in all_groups(config):
        multiplier = group.learning_rate_multiplier
        if multiplier <= 1 or group.freeze or written(group.learning_rate):
            continue
        if _first_wrong(_Seen.of(of_all, train_steps)) is not None:  # as was said of all
            return
        curve = of_all._replace(factor=of_all.factor * multiplier)
        wrong = _first_wrong(_Seen.of(curve, train_steps))
        if wrong is not None:
            message = f"the learning rate times this {wrong}"
            yield _problem("value", group, "learning_rate_multiplier", message)


def _started_at_zero(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields where a training starts with a rate of 0 by which its optimizer divides."""
    for place in places(config):
        optimizer = place.optimizer if place.optimizer.type else config.optimizer
        section = optimizer.get()
        if section is None or not section.divides_by_rate or getattr(place, "freeze", False):
            continue
        message = f"`{optimizer.type}` divides by the learning rate, which"
        if getattr(place, "learning_rate_multiplier", 1.0) == 0:
            name, message = "learning_rate_multiplier", f"{message} this makes 0"
            yield _problem("conflict", place, name, message)
            continue
        source = place if place.learning_rate.type else config
        curve = curve_of(config, source)
        if curve is not None and curve.is_computable() and curve.values([0]) == [0]:
            oneof = source.warmup if source.warmup.type else source.learning_rate
            yield _problem("conflict", oneof, "type", f"{message} is 0 at step 0")


def wrong_values(
    config: "OptimizationConfig", section: BaseOptimizerConfig, argument: str, name: str
) -> Iterator[Problem]:
    """Yields a scheduled hyperparameter's first value that the field itself would refuse."""
    # A clip of 0 is none, not one that is scheduled to be.
    is_clip = argument in ALL_CLIPS
    annotation = PositiveFloat if is_clip else section._spec_of(argument).annotation
    yield from wrong_numbers(config, annotation, argument, name)


def wrong_numbers(
    config: "OptimizationConfig", annotation: Any, argument: str, name: str
) -> Iterator[Problem]:
    """Yields the first value of the schedule `name` that a number of a type can't have."""
    curve = RateCurve(config.schedules[name].get())
    if not curve.is_computable(config._train_steps):
        return
    seen = _Seen.of(curve, config._train_steps)
    for step, value in zip(seen.steps, seen.values, strict=True):
        is_finite = math.isfinite(in_float32(value))
        _, wrong = check_value(annotation, value if is_finite else math.inf, "")
        if wrong:
            message = f"`{argument}` {wrong[0].message}, at step {step}"
            yield _problem("value", config, f"schedules.{name}", message)
            return


def _doubts(seen: _Seen, shares: frozenset[str]) -> Iterator[Problem]:
    if not any(map(in_float32, seen.values)):  # as it was asked for
        return
    warmup = _warmup_doubt(seen)
    if warmup is not None:
        yield warmup
    if not seen.train_steps:
        return
    end = seen.curve.end()
    if end is None:
        yield from _missed_boundaries(seen.curve, seen.train_steps, seen.values[-1])
        yield from _zero_tail(seen, seen.train_steps)
    elif warmup is None or warmup.code != "warmup-outlasts-decay":
        yield from _missed_end(seen.curve, *end, seen.train_steps, shares)


def _peak(seen: _Seen) -> float:
    """Returns the highest rate, which may be between the highest one seen and its neighbors."""
    curve, _, steps, values = seen
    highest = values.index(max(values))
    first, last = steps[max(highest - 1, 0)], steps[min(highest + 1, len(steps) - 1)]
    between = sorted({first + (last - first) * part // 32 for part in range(33)})
    return max(curve.values(between))


def _warmup_doubt(seen: _Seen) -> Problem | None:
    curve, train_steps, _, _ = seen
    section, name, length = curve.warmup_length()
    last = curve.start + length
    is_over = not train_steps or last < train_steps
    if not length or (is_over and (curve.warmup is None or curve.warmup.mode == "delay")):
        return None
    bare = curve._replace(warmup=None)
    asked, peak = _peak(_Seen.of(bare, None)), _peak(seen)
    reached = f"the rate comes to {peak:g} at most, of {asked:g}"
    if not is_over:
        message = f"is {length}, `train_steps` {train_steps}: {reached}; write fewer, or '5%'"
        return _problem("warmup-too-long", section, name, message)
    end = curve.end()
    if end is not None and last >= end[1]:
        message = f"is {length}, and the decay is over at step {end[1]}: {reached}; write fewer"
        message += ", a longer decay, or `mode: delay`"
        return _problem("warmup-outlasts-decay", section, name, message)
    if curve.learning_rate.peak_is_asked and peak < _LOW * asked:
        message = f"is {length}, in which the rate without warmup falls: {reached}; write fewer"
        return _problem("low-peak", section, name, f"{message}, or `mode: delay`")
    return None


def _missed_end(
    curve: RateCurve, name: str, end: int, train_steps: int, shares: frozenset[str]
) -> Iterator[Problem]:
    """Yields a decay that ends, as the field `name` says, long before or after the training."""
    rate = curve.learning_rate
    if abs(end - train_steps) <= _NEAR * train_steps or rate._join(name) in shares:
        return
    at_end, last = curve.values([end, train_steps - 1])
    message = f"the decay ends at step {end}, `train_steps` is {train_steps}: "
    advice = _fitting(rate, name, train_steps - end, train_steps)
    if end > train_steps:
        if last != at_end:
            message += f"the last rate is {last:g}, not {at_end:g}; {advice}"
            yield _problem("decay-ends-late", rate, name, message)
        return
    count = train_steps - end
    tail = curve.values([step for step in curve.steps(train_steps) if step >= end])
    if not any(map(in_float32, tail)):
        message += f"the rate is 0 for the last {count} steps; {advice}"
    elif all(value == last for value in tail):
        message += f"the rate stays {last:g} for the last {count} steps; {advice}"
        message += ", unless that is meant"
    else:
        message += f"the rate then goes on, to {last:g}; {advice}"
    yield _problem("decay-ends-early", rate, name, message)


def _fitting(rate: Config, name: str, missing: int, train_steps: int) -> str:
    """Says what to write for a decay that ends with the training."""
    holder, own = rate._holder(name)
    value = getattr(holder, own)
    if isinstance(value, tuple):
        return f"write boundaries up to {train_steps}"
    leave = "leave it out" if holder._spec_of(own).default() in (REMAINING, None) else ""
    fitting = f"write {value + missing}" if value + missing > 0 else ""
    return " or ".join(filter(None, [fitting, leave])) or "write a shorter one"


def _missed_boundaries(curve: RateCurve, train_steps: int, last: float) -> Iterator[Problem]:
    rate = curve.learning_rate
    boundaries = getattr(rate, "boundaries", ())
    if not isinstance(boundaries, tuple):
        return
    beyond = [b for b in boundaries if isinstance(b, int) and b + curve.shift > train_steps]
    if beyond:
        which = "none is" if len(beyond) == len(boundaries) else f"{beyond[0]} and later are not"
        which = which if len(boundaries) > 1 else "it is not"
        message = f"{which} reached, `train_steps` is {train_steps}: the last rate is {last:g}"
        advice = "write steps of the training, or shares such as '50%'"
        yield _problem("boundaries-beyond-end", rate, "boundaries", f"{message}; {advice}")


def _missed_phases(accumulation: AccumulationConfig, train_steps: int) -> Iterator[Problem]:
    """Yields phases of the accumulation that begin when the training is over."""
    beyond = [b for b in accumulation.boundaries if isinstance(b, int) and b >= train_steps]
    if beyond:
        message = f"the phase from step {beyond[0]} on is not reached, `train_steps` is "
        message += f"{train_steps}; write steps of the training, or shares such as '50%'"
        yield _problem("boundaries-beyond-end", accumulation, "boundaries", message)


def _zero_tail(seen: _Seen, train_steps: int) -> Iterator[Problem]:
    """Yields a rate without a known end that is 0 from some step on."""
    index = max(i for i, value in enumerate([1.0, *seen.values]) if in_float32(value))
    if index == len(seen.values):
        return
    zero, _ = seen.first(index, lambda value: not in_float32(value))
    if train_steps - zero > _NEAR * train_steps:
        message = f"the learning rate is 0 from step {zero} on, `train_steps` is {train_steps}"
        message += "; write rates that last, or fewer `train_steps`"
        yield _problem("decay-ends-early", seen.curve.learning_rate, None, message)


def _schedule_free(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields warmups of schedule-free optimizers that are too long, and rates that fall anyway."""
    train_steps = config._train_steps
    for section, source in schedule_free_sections(config):
        length = section.warmup_steps
        if train_steps and isinstance(length, int) and length >= train_steps:
            message = f"is {length}, `train_steps` {train_steps}: the learning rate is not reached"
            yield _problem("warmup-too-long", section, "warmup_steps", f"{message}; write fewer")
        curve = curve_of(config, source)
        if curve is None or not curve.is_computable(train_steps):
            continue
        values = curve.values(curve.steps(train_steps))
        if any(later < earlier for earlier, later in itertools.pairwise(values)):
            message = (
                "falls, which a schedule-free optimizer does without: the average of the weights "
                f"takes its place; `constant` is what `{section.name}` is meant for"
            )
            yield _problem("advice", source.learning_rate, "type", message)


def _problem(code: str, section: Any, name: str | None, message: str) -> Problem:
    """Returns a problem of a field; None is the rate of a section, or what stands first in it."""
    if name is None:
        names = [*_rates(section), *section._origins, *section.field_names()]
        if not names:
            return Problem(code, section._path, message)
        name = names[0]
    return section._problem(code, name, message)
