"""What a config asks for that a function of gradients cannot do."""

from collections.abc import Iterable, Iterator
from typing import Any

from optimization.configs.auxiliary_groups import own_auxiliaries
from optimization.configs.errors import Problem
from optimization.configs.matcher_config import MatcherConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.configs.rate_curve import places
from optimization.rules.rule import Rule
from optimization.schedules.compose import needs_keras
from optimization.schedules.metric import MetricLrConfig


def native_problems(config: OptimizationConfig) -> Iterator[Problem]:
    """Yields what a gradient transformation of JAX does not have."""
    section = config.optimizer.get()
    if section.on_nonfinite == "raise":
        message = "cannot be `raise` in a function that JAX compiles; write `skip`, and look at "
        yield section._problem("conflict", "on_nonfinite", f"{message}`state.nonfinite_steps`")
    if section.max_consecutive_nonfinite is not None:
        message = "cannot raise in a function that JAX compiles; look at "
        message += "`state.consecutive_nonfinite` in the training loop"
        yield section._problem("conflict", "max_consecutive_nonfinite", message)
    if config.ema is not None and not config.ema.trainable_weights_only:
        message = "must be true in JAX, whose parameters are what trains: average other arrays, "
        message += "such as batch statistics, by `optax.incremental_update` in the training loop"
        yield config.ema._problem("conflict", "trainable_weights_only", message)
    yield from _types(config)
    for oneof, message in _rates(config):
        yield oneof._problem("conflict", "type", message)
    own = [matcher for group in own_auxiliaries(config) for matcher in group.also]
    matchers: list[MatcherConfig] = [*config.param_groups, *own]
    for matcher in matchers:
        if matcher.layer_type is not None:
            message = "needs layers, and JAX has paths of arrays alone; write `match` or `ndim`"
            yield matcher._problem("conflict", "layer_type", message)


def _is_native(name: str) -> bool:
    return issubclass(OPTIMIZERS_CLS.config_class(name), Rule)


def _types(config: OptimizationConfig) -> Iterator[Problem]:
    having = ", ".join(filter(_is_native, OPTIMIZERS_CLS))
    for oneof in [place.optimizer for place in places(config)]:
        if oneof.type is not None and not _is_native(oneof.type):
            message = f"`{oneof.type}` is a class of Keras; these are JAX's too: {having}"
            yield oneof._problem("conflict", "type", message)


def _rates(config: OptimizationConfig) -> Iterable[tuple[Any, str]]:
    """Yields learning rates that are no function of the updates done, and why."""
    pairs: list[tuple[Any, Any]] = [(place.learning_rate, place.warmup) for place in places(config)]
    for oneof, warmup in [*pairs, *((oneof, None) for oneof in config.schedules.values())]:
        rate = oneof.get()
        if isinstance(rate, MetricLrConfig):
            message = f"`{oneof.type}` follows a metric, which an optax.Schedule does not know: "
            yield oneof, f"{message}chain `optax.contrib.reduce_on_plateau` behind the optimizer"
        elif rate is not None and needs_keras(rate, warmup and warmup.get()):
            message = "is a class of Keras; register a config with a formula, and JAX has it too"
            yield oneof, message
