"""Learning rates and other schedules as functions of the updates done, for JAX to trace."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from optimization.configs.optimization_config import OptimizationConfig
from optimization.rules.base import BaseOptimizerConfig
from optimization.schedules.base import BaseLrConfig, BaseWarmupConfig
from optimization.schedules.compose import check_schedule, rate_at, warmup_target, with_warmup

Schedule = Callable[[Any], jax.Array]
"""A function of the updates done, a number or an array; its values are float32."""


def schedule(
    learning_rate: BaseLrConfig,
    warmup: BaseWarmupConfig | None = None,
    factor: float = 1.0,
    decay: float = 0.0,
    start: int = 0,
) -> Schedule:
    """Returns a learning rate with its warmup, times a factor, over 1 + decay * step.

    `start` is the step at which all of that starts.
    """
    check_schedule(learning_rate, warmup)
    if warmup is not None and warmup.warmup_steps == 0:
        warmup = None
    target = None
    if warmup is not None:
        import numpy as np

        target = warmup_target(
            warmup, lambda step: float(rate_at(learning_rate, np.float64(step), np))
        )

    def value(step: jax.Array) -> jax.Array:
        def rate(step: jax.Array) -> jax.Array:
            return rate_at(learning_rate, step, jnp)

        step = jnp.maximum(step - start, 0.0) if start else step
        if warmup is None or target is None:
            found = rate(step)
        else:
            found = with_warmup(warmup, rate, target, step, jnp)
        return factor * found / (1 + decay * step) if decay else factor * found

    return lambda count: _in_float64(value, count)


def rate_of(config: OptimizationConfig, group: Any, section: BaseOptimizerConfig) -> Schedule:
    """Returns the learning rate of a group, that of all where it has none of its own.

    Args:
        config: The whole config.
        group: One of its groups; None for the default one.
        section: The section of the optimizer that updates the group.
    """
    found = config.learning_rate_of(group)
    if found is None:
        return rate_of(config, None, config.optimizer.get())
    if section.own_learning_rate() is not None:  # it knows nothing of batches
        return schedule(*found)
    factor = 1.0 if config.lr_scaling is None else config.lr_scaling.factor()
    decay = section.pipeline_arguments().get("decay", 0.0)
    return schedule(*found, factor, decay, config._schedule_start)


def _in_float64(function: Callable[[jax.Array], jax.Array], count: Any) -> jax.Array:
    """Returns what a formula has for a count, as float32.

    Float32 has no 2**24 + 1, so a boundary there would be passed a step late. TPUs have no float64:
    they compute in float32.
    """
    if jax.default_backend() not in ("cpu", "gpu", "cuda", "rocm"):
        return jnp.asarray(function(jnp.asarray(count, jnp.float32)), jnp.float32)
    owner = jax if hasattr(jax, "enable_x64") else jax.experimental
    wide: Callable[[bool], contextlib.AbstractContextManager[Any]] = owner.enable_x64
    with wide(True):
        value = function(jnp.asarray(count, jnp.float64))
        return jnp.broadcast_to(jnp.asarray(value, jnp.float32), jnp.shape(count))
