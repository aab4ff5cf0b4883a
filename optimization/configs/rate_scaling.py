"""What `lr_scaling` scales of a learning rate, and what stays as it is written.

The factor is on the whole curve, so that no place needs to know which fields are rates. A rate that
stays as it is written is divided by the factor before, here and nowhere else: each formula is in
proportion to its rates.
"""

import copy
import typing
from collections.abc import Iterator

from optimization.configs.auxiliary_groups import all_groups
from optimization.configs.errors import Problem
from optimization.configs.tree import Node
from optimization.schedules.base import BaseLrConfig, BaseWarmupConfig
from optimization.schedules.metric import MetricLrConfig

if typing.TYPE_CHECKING:
    from optimization.configs.group_config import LrScalingConfig
    from optimization.configs.optimization_config import OptimizationConfig

_START = "warmup_learning_rate"
_FIRST = "initial_learning_rate"

RateT = typing.TypeVar("RateT", bound=BaseLrConfig)
WarmupT = typing.TypeVar("WarmupT", bound=BaseWarmupConfig | None)


def as_scaled(
    rate: RateT, warmup: WarmupT, scaling: "LrScalingConfig | None"
) -> tuple[RateT, WarmupT]:
    """Returns a learning rate and its warmup so that the factor of `scaling` on them is right."""
    if scaling is None or scaling.global_batch_size is None:
        return rate, warmup
    factor = scaling.factor()
    if "floor" not in scaling.scales and any(floors(rate)):
        rate = rate.replace()  # not locked, and without what it worked out
        for section, name in floors(rate):
            section.__dict__[name] = getattr(section, name) / factor
        rate.lock()
    start = getattr(warmup, _START, 0.0)
    if "warmup_start" not in scaling.scales and start:
        twin: typing.Any = copy.copy(warmup)
        twin.__dict__[_START] = start / factor
        return rate, twin
    return rate, warmup


def floors(rate: BaseLrConfig) -> Iterator[tuple[BaseLrConfig, str]]:
    """Yields what is the lowest rate of a learning rate, or of one of its phases, in its unit."""
    for part in _rates(rate):
        if part.min_learning_rate:
            yield part, "min_learning_rate"
        first = getattr(part, _FIRST, None)
        for name in part.own_floors:
            value = getattr(part, name)
            # What is above the first rate is where it rises to: no floor.
            rises = isinstance(first, float) and isinstance(value, float) and value >= first
            if value and name not in part.floor_shares and not rises:
                yield part, name


def _rates(node: Node) -> Iterator[BaseLrConfig]:
    """Yields a learning rate, and those that it is made of."""
    if isinstance(node, BaseLrConfig):
        yield node
    for child in node.selected():
        yield from _rates(child)


def scaling_conflicts(config: "OptimizationConfig") -> Iterator[Problem]:
    """Yields what `lr_scaling.scales` leaves as it is where that can't be, or means nothing."""
    scaling = config.lr_scaling
    if scaling is None or "floor" in scaling.scales:
        return
    oneofs = [config.learning_rate, *(group.learning_rate for group in all_groups(config))]
    for rate in filter(None, (oneof.get() for oneof in oneofs)):
        if isinstance(rate, MetricLrConfig):
            message = (
                f"must have 'floor': `{rate._path}` follows a metric, and is scaled as a whole"
            )
            yield scaling._problem("conflict", "scales", message)
            continue
        for part in _rates(rate):
            yield from _shares(part)
        if scaling.global_batch_size is not None:
            yield from _too_high(rate, scaling.factor())


def _shares(rate: BaseLrConfig) -> Iterator[Problem]:
    for name in rate.floor_shares:
        if getattr(rate, name):
            message = "is a share of the peak, which `lr_scaling` scales, and the floor not: write "
            message += "`min_learning_rate`, or add 'floor' to `lr_scaling.scales`"
            yield rate._problem("conflict", name, message)


def _too_high(rate: BaseLrConfig, factor: float) -> Iterator[Problem]:
    for part, name in floors(rate):
        first, value = getattr(part, _FIRST, None), getattr(part, name)
        if isinstance(first, float) and first and value > first * factor:
            message = f"must be <= `{_FIRST}` times the factor of `lr_scaling`, {first * factor:g}"
            yield part._problem("conflict", name, f"{message}, got {value!r}")
