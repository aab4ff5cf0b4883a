"""Contradictions between the sections of an `OptimizationConfig`."""

import itertools
import typing
from collections.abc import Iterator

from optimization.configs.base import Config, OneOfConfig
from optimization.configs.durations import unknown_lengths
from optimization.configs.errors import Problem, did_you_mean
from optimization.configs.optimizer_config import BaseOptimizerConfig
from optimization.configs.types import check_value
from optimization.schedules.compose import (
    curve,
    needs_keras,
    schedule_conflicts,
    schedule_problems,
)
from optimization.schedules.metric import MetricLrConfig

if typing.TYPE_CHECKING:
    from optimization.configs.group_config import ParamGroupConfig
    from optimization.configs.optimization_config import OptimizationConfig

# Where schedules are looked at: the start, and steps of every order of magnitude.
_PROBES = [0, *(10**power for power in range(8))]


def conflicts(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields what contradicts itself in a config whose sections are right by themselves."""
    for pair in (config, *config.param_groups):
        if pair.warmup.type is not None and pair.learning_rate.type is not None:
            yield from schedule_conflicts(pair.learning_rate.get(), pair.warmup.get())
    yield from _followers(config)
    yield from _own_rates(config)
    yield from _averages(config)
    yield from _warmups(config)
    yield from _zero_rates(config)
    yield from _schedules(config)
    yield from _groups(config)


def _followers(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields learning rates that follow a metric where none can, or what keeps them from it."""
    places = [group.learning_rate for group in config.param_groups]
    for oneof in [*places, *config.schedules.values()]:
        if isinstance(oneof.get(), MetricLrConfig):
            message = f"`{oneof.type}` follows a metric, as only the learning rate of all can"
            yield oneof._problem("conflict", "type", message)
    section = config.optimizer.get()
    if isinstance(config.learning_rate.get(), MetricLrConfig) and getattr(section, "decay", 0):
        message = f"cannot act together with `{config.learning_rate.type}`, which follows a metric"
        yield section._problem("conflict", "decay", message)


def _own_rates(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields a learning rate where the optimizer has its own, and where then none is left."""
    own_of_all = config.optimizer.get().own_learning_rate()
    for place in (config, *config.param_groups):
        optimizer = place.optimizer if place.optimizer.type else config.optimizer
        own = optimizer.get().own_learning_rate()
        if own is not None:
            message = f"`{optimizer.type}` has a learning rate of its own here, {own.name}"
            sections: tuple[OneOfConfig, ...] = (place.learning_rate, place.warmup)
            for section in sections:
                if section.type is not None:
                    yield section._problem("conflict", "type", f"{message}: leave this out")
        elif own_of_all is not None and place.learning_rate.type is None and not place.freeze:
            message = "a type is required: the optimizer of all has a learning rate of its own"
            yield place.learning_rate._problem("missing", "type", message)
    if own_of_all is not None and config.lr_scaling is not None:
        message = f"`{config.optimizer.type}` has a learning rate of its own, that is not scaled"
        yield config._problem("conflict", "lr_scaling", message)


def _averages(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields a second average."""
    if config.ema is None:
        return
    if config.optimizer.get().use_ema:
        message = f"`{config.optimizer.type}` keeps an average already, by `use_ema`: leave out one"
        yield config._problem("conflict", "ema", message)
    for section, _ in _schedule_free(config):
        message = f"`{section.name}` averages the weights by itself: leave this out"
        yield config._problem("conflict", "ema", message)
        return


def _schedule_free(
    config: "OptimizationConfig",
) -> Iterator[tuple[BaseOptimizerConfig, "OptimizationConfig | ParamGroupConfig"]]:
    """Yields the schedule-free sections, each with what holds its learning rate and warmup."""
    for place in (config, *config.param_groups):
        own = place.optimizer.get()
        section = own or config.optimizer.get()
        has_rate = place.learning_rate.type is not None
        if section.schedule_free and (own is not None or has_rate):
            yield section, place if has_rate else config


def _warmups(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields a second warmup."""
    for section, source in _schedule_free(config):
        if source.warmup.type is not None and section.warmup_steps != 0:
            message = "there is a `warmup` section too: use one of the two"
            yield section._problem("conflict", "warmup_steps", message)


def doubts(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields what is right, but hardly meant: a learning rate that falls in spite of averages."""
    for section, source in _schedule_free(config):
        rate, warmup = source.learning_rate.get(), source.warmup.get()
        if schedule_problems(rate, warmup) or needs_keras(rate, warmup):
            continue
        values = curve(rate, warmup, _PROBES)
        if any(later < earlier for earlier, later in itertools.pairwise(values)):
            message = (
                "falls, which a schedule-free optimizer does without: the average of the weights "
                f"takes its place; `constant` is what `{section.name}` is meant for"
            )
            yield source.learning_rate._problem("advice", "type", message)


def _zero_rates(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields where a training starts with a rate of 0 by which its optimizer divides."""
    everything = (config, config.optimizer, 1.0)
    for place, optimizer, multiplier in [
        everything,
        *((g, g.optimizer, g.learning_rate_multiplier) for g in config.param_groups),
    ]:
        optimizer = optimizer if optimizer.type else config.optimizer
        section: BaseOptimizerConfig = optimizer.get()
        frozen = getattr(place, "freeze", False)
        if not section.divides_by_rate or frozen:
            continue
        source = place if place.learning_rate.type else config
        if multiplier == 0:
            message = f"`{optimizer.type}` divides by the learning rate, which this makes 0"
            yield place._problem("conflict", "learning_rate_multiplier", message)
        elif source.learning_rate.type is not None and _starts_at_zero(source):
            oneof: OneOfConfig = source.warmup if source.warmup.type else source.learning_rate
            message = f"`{optimizer.type}` divides by the learning rate, which is 0 at step 0"
            yield oneof._problem("conflict", "type", message)


def _starts_at_zero(source: Config) -> bool:
    rate, warmup = source.learning_rate.get(), source.warmup.get()
    if schedule_problems(rate, warmup) or needs_keras(rate, warmup):
        return False
    return curve(rate, warmup, [0])[0] == 0


def _schedules(config: "OptimizationConfig") -> Iterator[Problem]:
    section = config.optimizer.get()
    for name, schedule in config.schedules.items():
        place = f"schedules.{name}"
        argument = section.argument_name(name)
        if argument is None:
            near = did_you_mean(name, section.numbers())
            message = f"`{config.optimizer.type}` has no number of that name to schedule{near}"
            yield config._problem("unknown-key", place, message)
        elif schedule.type is None:
            yield config._problem("missing", f"{place}.type", "a type is required")
        elif argument in section.own_schedules():
            own = section.own_schedules()[argument]
            message = f"`{argument}` follows `{own}` of the optimizer's section: leave out one"
            yield config._problem("conflict", place, message)
        elif not section.arguments().get(argument):
            message = (
                f"`{argument}` is {getattr(section, argument)!r} in the optimizer's section, which "
                "leaves it out; give it the value it starts from"
            )
            yield config._problem("conflict", place, message)
        else:
            yield from _values(config, section, argument, place)


def _values(
    config: "OptimizationConfig", section: BaseOptimizerConfig, argument: str, place: str
) -> Iterator[Problem]:
    """Yields a scheduled value that the field itself would refuse."""
    rate = config.schedules[place.removeprefix("schedules.")].get()
    if unknown_lengths(rate) or rate.problems()[0] or needs_keras(rate, None):
        return
    annotation = section._find_spec(argument).annotation
    for step, value in zip(_PROBES, curve(rate, None, _PROBES), strict=True):
        _, wrong = check_value(annotation, float(value), place)
        if wrong:
            message = f"`{argument}` {wrong[0].message}, at step {step}"
            yield config._problem("value", place, message)
            return


def _groups(config: "OptimizationConfig") -> Iterator[Problem]:
    labels: dict[str, int] = {"default": -1}
    for number, group in enumerate(config.param_groups):
        own = group.optimizer.get() or config.optimizer.get()
        if group.weight_decay is not None and own.argument_name("weight_decay") is None:
            message = f"`{group.optimizer.type or config.optimizer.type}` has no weight decay"
            yield group._problem("conflict", "weight_decay", message)
        label = group.name or group.match or group.layer_type
        if label in labels:
            other = labels[label]
            taken = "that of the rest" if other < 0 else f"that of param_groups[{other}]"
            message = f"the name {label!r} is {taken}; give the group a `name` of its own"
            yield group._problem("conflict", "name", message)
        elif label is not None:
            labels[label] = number
