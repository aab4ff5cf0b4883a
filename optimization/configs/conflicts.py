"""Finds contradictions between the sections of an `OptimizationConfig`."""

import typing
from collections.abc import Iterator

from optimization.configs.auxiliary_groups import NAME, own_auxiliaries
from optimization.configs.curve_checks import wrong_numbers, wrong_values
from optimization.configs.errors import Problem, did_you_mean
from optimization.configs.oneof import OneOfConfig
from optimization.configs.rate_curve import places, schedule_free_sections
from optimization.configs.rate_scaling import scaling_conflicts
from optimization.configs.types import Fraction
from optimization.schedules.compose import needs_keras, schedule_conflicts
from optimization.schedules.metric import MetricLrConfig

if typing.TYPE_CHECKING:
    from optimization.configs.optimization_config import OptimizationConfig


def conflicts(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields the contradictions between sections that are right by themselves."""
    for pair in places(config):
        if pair.warmup.type is not None and pair.learning_rate.type is not None:
            yield from schedule_conflicts(pair.learning_rate.get(), pair.warmup.get())
    yield from _followers(config)
    yield from _own_rates(config)
    yield from _schedule_free(config)
    yield from _schedules(config)
    yield from _groups(config)
    yield from _peaks(config)
    yield from scaling_conflicts(config)
    yield from _state(config)
    yield from _accumulation(config)
    for name in ("clipnorm", "clipvalue", "adaptive_clip_factor"):
        if config.zclip is not None and getattr(config.optimizer.get(), name):
            message = "may not act beside `zclip`, which one of the global norm may"
            yield config.optimizer.get()._problem("conflict", name, message)


def _followers(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields learning rates that follow a metric where none can, or what keeps them from it."""
    of_groups = [place.learning_rate for place in places(config)[1:]]
    for oneof in [*of_groups, *config.schedules.values()]:
        if isinstance(oneof.get(), MetricLrConfig):
            message = f"`{oneof.type}` follows a metric, as only the learning rate of all can"
            yield oneof._problem("conflict", "type", message)
    section = config.optimizer.get()
    decay: float = getattr(section, "decay", 0.0)
    if isinstance(config.learning_rate.get(), MetricLrConfig) and decay:
        message = f"cannot act together with `{config.learning_rate.type}`, which follows a metric"
        yield section._problem("conflict", "decay", message)


def _peaks(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields optimizers that decay by a peak of the learning rate which is not known, or several.

    A group may share the optimizer, and have a learning rate of its own with another peak.
    """
    name = "corrected_weight_decay"
    for place in places(config):
        section, rate = place.optimizer.get(), place.learning_rate
        if section is None:
            if rate.type is not None and getattr(config.optimizer.get(), name, False):
                message = f"has a peak of its own: give the group an `optimizer` with `{name}` too"
                yield rate._problem("conflict", "type", message)
        elif getattr(section, name, False) and section.peak_learning_rate is None:
            rate = rate if rate.type is not None else config.learning_rate
            pair = (rate.get(), (place if rate is place.learning_rate else config).warmup.get())
            if isinstance(pair[0], MetricLrConfig) or (pair[0] and needs_keras(*pair)):
                message = f"is needed by `{name}`: that of `{rate.type}` is not known before"
                yield section._problem("missing", "peak_learning_rate", message)


def _own_rates(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields a learning rate where the optimizer has its own, and where then none is left."""
    own_of_all = config.optimizer.get().own_learning_rate()
    for place in places(config):
        optimizer = place.optimizer if place.optimizer.type else config.optimizer
        own = optimizer.get().own_learning_rate()
        if own is not None:
            message = f"`{optimizer.type}` has a learning rate of its own here, {own.name}"
            section: OneOfConfig
            for section in (place.learning_rate, place.warmup):
                if section.type is not None:
                    yield section._problem("conflict", "type", f"{message}: leave this out")
        elif own_of_all and not (place.learning_rate.type or getattr(place, "freeze", False)):
            message = "a type is required: the optimizer of all has a learning rate of its own"
            yield place.learning_rate._problem("missing", "type", message)
    if own_of_all is not None and config.lr_scaling is not None:
        message = f"`{config.optimizer.type}` has a learning rate of its own, that is not scaled"
        yield config._problem("conflict", "lr_scaling", message)


def _schedule_free(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields a second average, and a second warmup."""
    if config.ema is not None and config.optimizer.get().use_ema:
        message = f"`{config.optimizer.type}` keeps an average already, by `use_ema`: leave out one"
        yield config._problem("conflict", "ema", message)
    for number, (section, source) in enumerate(schedule_free_sections(config)):
        if config.ema is not None and number == 0:
            message = f"`{section.name}` averages the weights by itself: leave this out"
            yield config._problem("conflict", "ema", message)
        if source.warmup.type is not None and section.warmup_steps != 0:
            message = "there is a `warmup` section too: use one of the two"
            yield section._problem("conflict", "warmup_steps", message)


def _state(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields what `state` asks of optimizers that they can't do."""
    state = config.optimizer.get().state
    sections = [place.optimizer.get() for place in places(config)]
    sections = [section for section in sections if section is not None]
    for section in sections if state is not None else ():
        if not hasattr(section, "kept_slots"):
            message = (
                f"`{section.name}` is a class of Keras, whose state is its own: leave this out"
            )
            yield config.optimizer.get()._problem("conflict", "state", message)
            return
    if state is not None:
        slots = [slot for section in sections for slot in section.kept_slots()]
        for name, message in state.wrong_for(slots):
            yield state._problem("conflict", name, message)


def _schedules(config: "OptimizationConfig") -> Iterator[Problem]:
    section = config.optimizer.get()
    for name, schedule in config.schedules.items():
        place = f"schedules.{name}"
        argument = section.argument_name(name)
        if name in _OF_AVERAGES:
            yield from _average_schedule(config, name, schedule)
        elif argument is None:
            near = did_you_mean(name, [*section.numbers(), *section.clips()])
            message = f"`{config.optimizer.type}` has no number of that name to schedule{near}"
            yield config._problem("unknown-key", place, message)
        elif schedule.type is None:
            yield config._problem("missing", f"{place}.type", "a type is required")
        elif argument in section.own_schedules():
            own = section.own_schedules()[argument]
            message = f"`{argument}` follows `{own}` of the optimizer's section: leave out one"
            yield config._problem("conflict", place, message)
        elif not section.has_number(argument):
            value = f"is {getattr(section, argument)!r} in the optimizer's section"
            message = f"`{argument}` {value}, which leaves it out; give it the value it starts from"
            yield config._problem("conflict", place, message)
        else:
            yield from wrong_values(config, section, argument, name)


_OF_AVERAGES = {"average_decay": "an `ema` section", "ema_momentum": "`use_ema: true`"}


def _average_schedule(
    config: "OptimizationConfig", name: str, schedule: OneOfConfig
) -> Iterator[Problem]:
    """Yields what keeps the decay of the average from following a schedule."""
    place = f"schedules.{name}"
    if name != config.average_decay_name:
        message = f"is the decay of an average that there is not: it needs {_OF_AVERAGES[name]}"
        yield config._problem("conflict", place, message)
    elif schedule.type is None:
        yield config._problem("missing", f"{place}.type", "a type is required")
    elif config.ema is not None and config.ema.dynamic_decay == "cosine":
        message = "follows a schedule, and `dynamic_decay: cosine` of `ema` is one: leave out one"
        yield config._problem("conflict", place, message)
    else:
        yield from wrong_numbers(config, Fraction, name, name)


def _accumulation(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields what makes no sense where the number of micro-batches in an update grows."""
    if config.accumulation is None:
        return
    section, scaling = config.optimizer.get(), config.lr_scaling
    if section.gradient_accumulation_steps != 1:
        message = "must be 1 with `accumulation`, which says how many there are in each update"
        yield section._problem("conflict", "gradient_accumulation_steps", message)
    if scaling is not None and scaling.global_batch_size is None:
        message = "is needed with `accumulation`, by which the batch of an update grows: write "
        message += "that for which the rate is scaled"
        yield scaling._problem("missing", "global_batch_size", message)


def _groups(config: "OptimizationConfig") -> Iterator[Problem]:
    labels = {"default": "that of the rest"}
    if own_auxiliaries(config):
        labels[NAME] = "that of the auxiliary optimizer"
    for number, group in enumerate(config.param_groups):
        own = group.optimizer.get() or config.optimizer.get()
        if group.weight_decay is not None and own.argument_name("weight_decay") is None:
            message = f"`{group.optimizer.type or config.optimizer.type}` has no weight decay"
            yield group._problem("conflict", "weight_decay", message)
        kind, bound = group.own_clip() or ("", 0.0)
        if kind == "global_clipnorm" and bound and getattr(own, "auxiliary", None) is not None:
            message = "can't be one norm over what two optimizers update, Muon and its auxiliary: "
            message += "write `clipnorm`, `clipvalue` or `adaptive_clip_factor`, or give the group "
            message += "an `optimizer` of its own without `auxiliary`"
            yield group._problem("conflict", kind, message)
        label = group.name or group.match or group.layer_type
        if label in labels:
            message = f"the name {label!r} is {labels[label]}; give the group a `name` of its own"
            yield group._problem("conflict", "name", message)
        elif label is not None:
            labels[label] = f"that of param_groups[{number}]"
