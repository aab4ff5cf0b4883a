"""`get_scheduler` and the `get_*` functions of transformers, for PyTorch's and Keras' optimizers.

A PyTorch optimizer gets a scheduler of PyTorch, to be stepped once after each of its steps. A Keras
optimizer counts its own steps: its `learning_rate` becomes a schedule, which is returned. In both
cases the rate that the optimizer has is the one that the schedule multiplies.
"""

import enum
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from optimization.configs.errors import did_you_mean
from optimization.schedules import LrConfig
from optimization.schedules.followers import StreamingAverage as StreamingAverage


class SchedulerType(enum.StrEnum):
    """The names of schedules, as in transformers.

    >>> SchedulerType("cosine")
    <SchedulerType.COSINE: 'cosine'>
    """

    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_RESTARTS = "cosine_with_restarts"
    POLYNOMIAL = "polynomial"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    INVERSE_SQRT = "inverse_sqrt"
    REDUCE_ON_PLATEAU = "reduce_lr_on_plateau"
    COSINE_WITH_MIN_LR = "cosine_with_min_lr"
    COSINE_WARMUP_WITH_MIN_LR = "cosine_warmup_with_min_lr"
    WARMUP_STABLE_DECAY = "warmup_stable_decay"
    GREEDY = "greedy"

    @classmethod
    def _missing_(cls, value: object) -> None:
        names = [member.value for member in cls]
        raise ValueError(f"unknown scheduler type {value!r}{did_you_mean(str(value), names)}")


def get_scheduler(
    name: str | SchedulerType,
    optimizer: Any,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Returns a schedule by its name.

    >>> get_scheduler("linear", sgd, 10, 110).lr_lambdas[0](60)
    0.5

    Args:
        name: One of `SchedulerType`.
        optimizer: A PyTorch or a Keras optimizer.
        num_warmup_steps: Optimizer steps of the warmup, where the schedule has one.
        num_training_steps: Optimizer steps in all, where the schedule has an end.
        scheduler_specific_kwargs: Further arguments of the `get_*` function.

    Returns:
        What the `get_*` function of that name returns.

    Raises:
        ValueError: For an unknown name, with the nearest; where a number of steps is missing.
        TypeError: For arguments that the schedule does not have.
    """
    kind = SchedulerType(name)
    function = _FUNCTIONS[kind]
    further = dict(scheduler_specific_kwargs or {})
    lengths = {"num_warmup_steps": num_warmup_steps, "num_training_steps": num_training_steps}
    given = {}
    for argument, value in lengths.items():
        if argument not in function.__annotations__:
            continue
        if value is not None:
            given[argument] = value
        elif argument not in further and not (kind is _WSD and argument == "num_training_steps"):
            raise ValueError(f"{kind.value} requires `{argument}`, please provide that argument.")
    return function(optimizer, **given, **further)


def get_constant_schedule(optimizer: Any, last_epoch: int = -1) -> Any:
    """Returns a constant rate: a `LambdaLR` for PyTorch, a number for Keras.

    >>> get_constant_schedule(sgd).lr_lambdas[0](60)
    1.0

    Args:
        optimizer: A PyTorch or a Keras optimizer.
        last_epoch: As PyTorch means it, the last step that was seen: the steps done less 1. With
            Keras only -1.
    """
    return _scheduled("constant", **locals())


def get_constant_schedule_with_warmup(
    optimizer: Any, num_warmup_steps: int, last_epoch: int = -1
) -> Any:
    """Returns a rate that goes up in a line and stays; `hf_constant_with_warmup` in a config.

    >>> get_constant_schedule_with_warmup(sgd, 10).lr_lambdas[0](5)
    0.5
    """
    return _scheduled("constant_with_warmup", **locals())


def get_linear_schedule_with_warmup(
    optimizer: Any, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> Any:
    """Returns a rate that goes up in a line and down to 0; `hf_linear` in a config.

    >>> get_linear_schedule_with_warmup(sgd, 10, 110).lr_lambdas[0](60)
    0.5
    """
    return _scheduled("linear", **locals())


def get_cosine_schedule_with_warmup(
    optimizer: Any,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> Any:
    """Returns a rate that goes up in a line, then in waves; `hf_cosine` in a config.

    >>> round(get_cosine_schedule_with_warmup(sgd, 10, 110).lr_lambdas[0](60), 4)
    0.5
    """
    return _scheduled("cosine", **locals())


def get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer: Any,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: int = 1,
    last_epoch: int = -1,
) -> Any:
    """Returns half cosines of equal length; `hf_cosine_with_restarts` in a config.

    >>> schedule = get_cosine_with_hard_restarts_schedule_with_warmup(sgd, 10, 110, num_cycles=2)
    >>> schedule.lr_lambdas[0](60)
    1.0
    """
    return _scheduled("cosine_with_restarts", **locals())


def get_polynomial_decay_schedule_with_warmup(
    optimizer: Any,
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
) -> Any:
    """Returns a rate that falls to `lr_end` as a power; `hf_polynomial` in a config.

    >>> schedule = get_polynomial_decay_schedule_with_warmup(sgd, 10, 110, power=2.0)
    >>> round(schedule.lr_lambdas[0](60), 4)
    0.25
    """
    return _scheduled("polynomial", **locals())


def get_inverse_sqrt_schedule(
    optimizer: Any, num_warmup_steps: int, timescale: int | None = None, last_epoch: int = -1
) -> Any:
    """Returns a rate that falls as the inverse root; `hf_inverse_sqrt` in a config.

    >>> round(get_inverse_sqrt_schedule(sgd, 10).lr_lambdas[0](40), 4)
    0.5
    """
    return _scheduled("inverse_sqrt", **locals())


def get_cosine_with_min_lr_schedule_with_warmup(
    optimizer: Any,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> Any:
    """Returns waves above a least rate; `hf_cosine_with_min_lr` in a config.

    >>> schedule = get_cosine_with_min_lr_schedule_with_warmup(sgd, 10, 110, min_lr=0.1)
    >>> schedule.lr_lambdas[0](110)  # times the rate of 0.5
    0.2
    """
    return _scheduled("cosine_with_min_lr", **locals())


def get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
    optimizer: Any,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> Any:
    """Returns the same a step ahead; `hf_cosine_warmup_with_min_lr` in a config.

    >>> make = get_cosine_with_min_lr_schedule_with_warmup_lr_rate
    >>> round(make(sgd, 10, 110, min_lr=0.1).lr_lambdas[0](110), 3)
    0.2
    """
    if not num_warmup_steps:
        warmup_lr_rate = None  # as below
    return _scheduled("cosine_warmup_with_min_lr", **locals())


def get_wsd_schedule(
    optimizer: Any,
    num_warmup_steps: int,
    num_decay_steps: int,
    num_training_steps: int | None = None,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> Any:
    """Returns a rate that goes up, stays, and goes down; `hf_warmup_stable_decay` in a config.

    With `num_stable_steps` the parts decide, and `num_training_steps` does nothing but warn.

    >>> get_wsd_schedule(sgd, 10, 20, num_stable_steps=50).lr_lambdas[0](60)
    1.0
    """
    if num_training_steps is not None and num_stable_steps is not None:
        warnings.warn(
            "`num_training_steps` is left out, since `num_stable_steps` is given", stacklevel=2
        )
        num_training_steps = None
    # A config refuses what is not used, transformers does not.
    if not num_warmup_steps and warmup_type in ("cosine", "1-sqrt"):
        warmup_type = "linear"
    if decay_type != "cosine":
        num_cycles = 0.5
    return _scheduled("warmup_stable_decay", **locals())


def get_reduce_on_plateau_schedule(optimizer: Any, **kwargs: Any) -> Any:
    """Returns PyTorch's `ReduceLROnPlateau`, or a `MetricLearningRate` callback for Keras.

    It takes the arguments of that class, or the fields of `hf_reduce_lr_on_plateau`.

    >>> get_reduce_on_plateau_schedule(sgd, patience=2).patience
    2
    """
    if not _is_torch(optimizer):
        return _callback(optimizer, "reduce_lr_on_plateau", kwargs)
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return ReduceLROnPlateau(optimizer, **kwargs)


def get_greedy_schedule(optimizer: Any, **kwargs: Any) -> Any:
    """Returns a `GreedyLR` for PyTorch, or a `MetricLearningRate` callback for Keras.

    It takes the arguments of that class, or the fields of `hf_greedy`.

    >>> get_greedy_schedule(sgd, patience=2).patience
    2
    """
    if not _is_torch(optimizer):
        return _callback(optimizer, "greedy", kwargs)
    from optimization.torch.metric import GreedyLR

    return GreedyLR(optimizer, **kwargs)


_WSD = SchedulerType.WARMUP_STABLE_DECAY
_FUNCTIONS: dict[SchedulerType, Callable[..., Any]] = {
    SchedulerType.LINEAR: get_linear_schedule_with_warmup,
    SchedulerType.COSINE: get_cosine_schedule_with_warmup,
    SchedulerType.COSINE_WITH_RESTARTS: get_cosine_with_hard_restarts_schedule_with_warmup,
    SchedulerType.POLYNOMIAL: get_polynomial_decay_schedule_with_warmup,
    SchedulerType.CONSTANT: get_constant_schedule,
    SchedulerType.CONSTANT_WITH_WARMUP: get_constant_schedule_with_warmup,
    SchedulerType.INVERSE_SQRT: get_inverse_sqrt_schedule,
    SchedulerType.REDUCE_ON_PLATEAU: get_reduce_on_plateau_schedule,
    SchedulerType.COSINE_WITH_MIN_LR: get_cosine_with_min_lr_schedule_with_warmup,
    SchedulerType.COSINE_WARMUP_WITH_MIN_LR: get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
    _WSD: get_wsd_schedule,
    SchedulerType.GREEDY: get_greedy_schedule,
}


def _config(kind: str, base: float, settings: dict[str, Any]) -> Any:
    name = f"hf_{kind}"
    section = LrConfig({"type": name, name: {"initial_learning_rate": base, **settings}}).get()
    section.validate()
    section.lock()
    return section


def _factor(step: int, section: Any) -> float:
    """Returns the factor on a learning rate after `step` steps."""
    import numpy as np

    return float(section.value(np.float64(step), np)) / section.initial_learning_rate


def _scheduled(kind: str, optimizer: Any, last_epoch: int, **settings: Any) -> Any:
    """Returns the schedule `hf_<kind>` of an optimizer, given the arguments of a function above."""
    if "num_training_steps" in settings and kind != "warmup_stable_decay":
        # A config refuses a warmup that does not end; in transformers, whose values these are, the
        # rate then has reached its end with the warmup.
        lengths = ("num_training_steps", "num_warmup_steps")
        settings["num_training_steps"] = max(settings[name] for name in lengths)
    if _is_torch(optimizer):
        from optimization.transformers.lambda_scheduler import FactorScheduler

        # Where the end is given as a rate, it is relative to that of the defaults.
        absolute = settings.get("lr_end") is not None or settings.get("min_lr") is not None
        base = float(optimizer.defaults["lr"]) if absolute else 1.0
        # A partial function pickles, and adds nothing to the scheduler's state.
        factor = partial(_factor, section=_config(kind, base, settings))
        return FactorScheduler(optimizer, factor, last_epoch)
    if last_epoch != -1:
        raise ValueError(
            "Argument `last_epoch` must be -1 for a Keras optimizer, which counts its own "
            f"iterations, received: last_epoch={last_epoch}"
        )
    from optimization.schedules.keras_schedules import build_schedule

    schedule = build_schedule(_config(kind, _rate_of(optimizer), settings))
    optimizer.learning_rate = schedule
    return schedule


def _callback(optimizer: Any, kind: str, settings: dict[str, Any]) -> Any:
    from optimization.keras.metric_rate import MetricLearningRate

    return MetricLearningRate(_config(kind, _rate_of(optimizer), settings))


def _is_torch(optimizer: Any) -> bool:
    """Says whether this is a PyTorch optimizer; PyTorch need not be there to know it is not."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(optimizer, torch.optim.Optimizer)


def _rate_of(optimizer: Any) -> float:
    """Returns the constant learning rate of a Keras optimizer.

    Raises:
        TypeError: If it is no optimizer, or its learning rate is a schedule.
    """
    import keras
    import numpy as np

    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "Argument `optimizer` must be a PyTorch or a Keras optimizer, "
            f"received: {type(optimizer).__name__}"
        )
    from optimization.keras.metric_rate import owner_of

    try:
        rate = owner_of(optimizer).learning_rate
    except ValueError as error:
        raise TypeError(f"the learning rate is a schedule already: {error}") from None
    # What a float32 variable holds, as the decimal that it was made from.
    return float(str(np.float32(keras.ops.convert_to_numpy(rate))))
