"""What the trainer asks of an optimizer, the factory's or another of Keras.

Another optimizer lacks most of it, and one may be wrapped in a `LossScaleOptimizer`.
"""

import re
import statistics
import typing
from collections.abc import Sequence
from typing import Any

from optimization.configs.optimization_config import OptimizationConfig
from optimization.matching.rules import DEFAULT
from optimization.training.errors import TrainingError

if typing.TYPE_CHECKING:
    import keras

_CLIPS = {"last_gradient_norm": "gradient_norm", "clipped_share": "clipped_share"}
# What a graph's assertion makes of the message of `NonFiniteGradientError`, and the message itself.
_NOT_FINITE = re.compile(r"are not finite:\]? \[?([^\]\n]*)")
_LISTED = 10


def innermost(optimizer: Any) -> Any:
    """Returns the optimizer that a `LossScaleOptimizer` wraps, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def averages(optimizer: Any) -> bool:
    """Says whether the optimizer averages weights."""
    return getattr(innermost(optimizer), "averages_weights", False)


def shared_options(config: OptimizationConfig) -> tuple[int, str]:
    """Returns the batches in one update, and what is done about gradients that are not finite."""
    section = config.optimizer.get()
    return section.gradient_accumulation_steps, section.on_nonfinite or "propagate"


def check_accumulation(optimizer: Any, steps: int) -> None:
    """Checks that an optimizer makes one update of `steps` batches.

    Raises:
        TrainingError: If it does not: a task may create another optimizer than the config's.
    """
    inner = innermost(optimizer)
    own = 1
    if hasattr(inner, "micro_step"):
        own = inner.gradient_accumulation_steps or 1
    if own != steps:
        raise TrainingError(
            f"trainer.optimizer_config: `gradient_accumulation_steps` is {steps}, but the "
            f"{type(inner).__name__} that the task created makes an update of {own}"
        )


def accumulated(
    optimizer: Any, variables: Sequence["keras.Variable"]
) -> "list[keras.Variable | None]":
    """Returns what has been added up for each variable; None for one that is not trained."""
    from optimization.keras.state import by_unique_name

    named = innermost(optimizer).variables_by_path()
    names = by_unique_name([(f"accumulator/{v.path}", v) for v in variables])
    return [named.get(name) for name in names]


def learning_rates(optimizer: Any) -> dict[str, float]:
    """Returns the learning rate, and where there are several groups that of each."""
    of_groups: dict[str, Any] = getattr(innermost(optimizer), "learning_rates", dict)()
    if list(of_groups) == [DEFAULT]:  # A schedule is not asked twice: it takes its time.
        return {"learning_rate": _number(of_groups[DEFAULT])}
    values = {"learning_rate": _number(optimizer.learning_rate)}
    if len(of_groups) > 1:
        values |= {f"learning_rate/{name}": _number(rate) for name, rate in of_groups.items()}
    return values


def optimizer_values(optimizer: Any) -> dict[str, float]:
    """Returns what belongs in a summary: rates, clips, skipped updates, the loss scale.

    `effective_learning_rate` is there where steps are relative to the weights, by Adafactor: the
    mean of `optimization.optimizers.effective_learning_rates`.
    """
    inner = innermost(optimizer)
    values = learning_rates(optimizer)
    effective = _effective_learning_rate(optimizer)
    if effective is not None:
        values["effective_learning_rate"] = effective
    for attribute, name in _CLIPS.items():
        value = getattr(inner, attribute, None)
        if value is not None:
            values[name] = _number(value)
    skipped = getattr(inner, "nonfinite_steps", 0)
    if not isinstance(skipped, int):  # A variable, if they are counted.
        values["nonfinite_steps"] = int(_number(skipped))
    if inner is not optimizer:
        values["loss_scale"] = _number(optimizer.dynamic_scale)
    return values


def _effective_learning_rate(optimizer: Any) -> float | None:
    from optimization.keras.effective_rates import (
        effective_learning_rates,
        relative_to_weights,
    )

    if not relative_to_weights(optimizer):
        return None
    return statistics.fmean(effective_learning_rates(optimizer).values())


def updates(optimizer: Any) -> int:
    """Returns how many updates the optimizer has taken."""
    return int(_number(optimizer.iterations))


def _number(value: Any) -> float:
    # A variable with copies on several devices is no number by itself.
    return float(value.numpy() if hasattr(value, "numpy") else value)


def nonfinite_variables(error: Exception) -> str | None:
    """Returns the variables that an error of the finite check names; None for another error."""
    match = _NOT_FINITE.search(str(error))
    if match is None:
        return None
    names = re.split(r"[,\s]+", match[1].strip())
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def frozen_variables(optimizer: Any) -> set[int]:
    """Returns the ids of the variables that the optimizer leaves as they are."""
    return getattr(innermost(optimizer), "frozen_variables", set)()
