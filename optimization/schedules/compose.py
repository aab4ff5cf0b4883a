"""Puts a warmup before a learning rate, checks the two together, and computes their curve."""

import copy
import typing
from collections.abc import Callable, Iterator, Sequence

from optimization.configs.base import Config
from optimization.configs.durations import (
    TrainingLength,
    durations,
    unknown_lengths,
    with_length,
)
from optimization.configs.errors import ConfigError, Problem
from optimization.configs.tree import Node
from optimization.schedules.base import Array, BaseLrConfig, BaseWarmupConfig, Namespace, computed
from optimization.schedules.formulas import whole_and_rest
from optimization.schedules.scalars import SCALARS

if typing.TYPE_CHECKING:
    import numpy as np


def rate_at(rate: BaseLrConfig, step: Array, xp: Namespace) -> Array:
    """Returns what a learning rate has for optimizer steps, as often as it changes."""
    return computed(rate, rate.at(_whole(step, rate.per, xp), xp), step)


def ramp(warmup: BaseWarmupConfig, step: Array, target: float, xp: Namespace) -> Array:
    """Returns a warmup's own rate at optimizer steps; from its `target_step` on, the last one."""
    ahead, formula = warmup.counts_from * warmup.per, warmup
    if warmup.target_step + ahead != warmup.warmup_steps:
        formula = copy.copy(warmup)
        formula.__dict__["warmup_steps"] = warmup.target_step + ahead
    done = xp.minimum(_whole(step, warmup.per, xp), float(warmup.target_step))
    return computed(warmup, formula.value(done + float(ahead) if ahead else done, target, xp), step)


def _whole(step: Array, period: int, xp: Namespace) -> Array:
    """Returns the steps of whole periods."""
    return step if period == 1 else step - whole_and_rest(step, period, xp)[1]


def with_warmup(
    warmup: BaseWarmupConfig,
    rate: Callable[[Array], Array],
    target: float,
    step: Array,
    xp: Namespace,
) -> Array:
    """Returns the learning rate `rate` with `warmup`, which leads to what `warmup_target` says."""
    length = float(warmup.warmup_steps)
    early = step < length
    first = ramp(warmup, step, target, xp)
    if warmup.mode == "multiply":
        late = rate(step)
        return xp.where(early, late * (first / target), late)
    late = rate(xp.maximum(step - length, 0.0)) if warmup.mode == "delay" else rate(step)
    return xp.where(early, first, late)


def warmup_target(warmup: BaseWarmupConfig, rate: Callable[[int], float]) -> float:
    """Returns the value to which `warmup` leads before `rate`; a ConfigError if there is none."""
    if warmup.mode == "replace" and warmup.leads_to == "rate":
        return float(rate(warmup.target_step))
    first = float(rate(0))
    if warmup.mode != "multiply" or first:
        return first
    if warmup.warmup_learning_rate and warmup.warmup_steps:
        message = (
            "cannot be `multiply`: the learning rate is 0 at step 0, where no factor makes "
            f"`warmup_learning_rate` {warmup.warmup_learning_rate!r} of it"
        )
        raise ConfigError([warmup._problem("conflict", "mode", message)])
    return 1.0


def incomplete(config: Config) -> list[Problem]:
    """Returns what keeps a config from being used: what is wrong, and steps that are no numbers."""
    unknown: list[Problem] = []
    if any(durations(config)):  # of phases some are known, whatever the length of the training
        config, unknown = with_length(config, TrainingLength())
    return [*config.problems()[0], *unknown]


def schedule_problems(
    lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig | None
) -> list[Problem]:
    """Returns what is wrong with a learning rate, a warmup, and the two together.

    >>> from optimization.schedules.cosine import CosineLrConfig
    >>> [str(problem) for problem in schedule_problems(CosineLrConfig(decay_steps=100), None)]
    ['initial_learning_rate: a value is required, none was given']
    """
    problems = [p for c in (lr_config, warmup_config) if c is not None for p in incomplete(c)]
    if problems or warmup_config is None:
        return problems
    return schedule_conflicts(lr_config, warmup_config)


def schedule_conflicts(lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig) -> list[Problem]:
    """Returns what is wrong with the two together, each being right by itself."""
    if warmup_config.warmup_steps != 0:
        refused = [
            lr_config._problem("conflict", name, message)
            for name, message in lr_config.warmup_conflicts()
        ]
        if refused:
            return refused
    if warmup_config.mode != "multiply" or needs_keras(lr_config, warmup_config):
        return []
    if unknown_lengths(lr_config) or unknown_lengths(warmup_config):
        return []
    try:
        checked_values(lr_config, warmup_config, [0])
    except ConfigError as error:
        return list(error.problems)
    except Exception:  # of a formula that NumPy does not compute: see `RateCurve.failure`
        if are_ours(lr_config, warmup_config):
            raise
    return []


def check_schedule(lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig | None) -> None:
    """Raises a ConfigError with all that `schedule_problems` finds.

    >>> from optimization.schedules.cosine import CosineLrConfig
    >>> check_schedule(CosineLrConfig(initial_learning_rate=0.1, decay_steps=100), None)
    """
    problems = schedule_problems(lr_config, warmup_config)
    if problems:
        raise ConfigError(problems)


def needs_keras(lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig | None) -> bool:
    """Whether a Keras class, not a formula, implements the learning rate or the warmup."""
    return any(getattr(config, "keras_class", None) for config in (lr_config, warmup_config))


def are_ours(lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig | None) -> bool:
    """Whether both are of this package, whose formulas hold at every step."""
    configs = [*_parts(lr_config), *([] if warmup_config is None else [warmup_config])]
    return all(type(config).__module__.startswith("optimization.") for config in configs)


def _parts(config: Node) -> Iterator[Node]:
    """Yields a learning rate, and those that it is made of."""
    yield config
    for child in config.selected():
        yield from _parts(child)


def curve(
    lr_config: BaseLrConfig,
    warmup_config: BaseWarmupConfig | None,
    steps: "Sequence[int] | np.ndarray",
) -> "np.ndarray":
    """Returns the learning rate at each of `steps`, in float64, computed by NumPy.

    >>> from optimization import LrConfig, WarmupConfig
    >>> rate = LrConfig(type="linear", linear={"initial_learning_rate": 1.0, "decay_steps": 100})
    >>> warmup = WarmupConfig(type="linear", linear={"warmup_steps": 10})
    >>> curve(rate.get(), warmup.get(), [0, 5, 10, 50])
    array([0.  , 0.45, 0.9 , 0.5 ])

    Keras is imported only if a registered Keras class is among the two; it is then called for one
    step after the other.

    Args:
        lr_config: A learning rate, such as `LrConfig.get()` returns.
        warmup_config: A warmup, or None for none.
        steps: Optimizer steps done, >= 0, of any shape.

    Returns:
        An array of the shape of `steps`.

    Raises:
        ConfigError: If the configs are not complete and right.
        ValueError: If a step is negative.
    """
    return curve_function(lr_config, warmup_config)(steps)


def curve_function(
    lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig | None
) -> Callable[..., "np.ndarray"]:
    """Returns `curve` as a function of the steps; checks are made once, for read-only configs."""
    import numpy as np

    check_schedule(lr_config, warmup_config)
    evaluate = _evaluation(lr_config, warmup_config, np)

    def values(steps: "Sequence[int] | np.ndarray") -> "np.ndarray":
        steps = np.asarray(steps, dtype=np.float64)
        if not (steps >= 0).all():
            raise ValueError(f"Argument `steps` must be >= 0, received: steps={steps}")
        return np.array(np.broadcast_to(evaluate(steps), steps.shape))

    return values


def checked_values(
    lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig | None, steps: Sequence[int]
) -> list[float]:
    """Returns `curve` for configs that are right and need no Keras, cheaply for a few steps."""
    if are_ours(lr_config, warmup_config):
        evaluate = _evaluation(lr_config, warmup_config, SCALARS)
        return [evaluate(float(step)) for step in steps]
    import numpy as np

    with np.errstate(all="ignore"):
        values = _evaluation(lr_config, warmup_config, np)(np.asarray(steps, np.float64))
        return np.broadcast_to(np.asarray(values, np.float64), len(steps)).tolist()


def _evaluation(
    lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig | None, xp: Namespace
) -> Callable[[Array], Array]:
    if needs_keras(lr_config, warmup_config):
        from optimization.schedules.keras_schedules import build_schedule, sample

        schedule = build_schedule(lr_config, warmup_config)
        return lambda steps: sample(schedule, steps)

    fixed = lr_config.fixed()

    def rate(step: Array) -> Array:
        return rate_at(fixed, step, xp)

    if warmup_config is None or warmup_config.warmup_steps == 0:
        return rate
    target = warmup_target(warmup_config, lambda step: rate(xp.float64(step)))
    return lambda steps: with_warmup(warmup_config, rate, target, steps, xp)
