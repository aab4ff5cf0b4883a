"""What the trainer asks of an optimizer, the factory's or another of Keras.

Another optimizer lacks most of it, and one may be wrapped in a `LossScaleOptimizer`.
"""

import re
import statistics
from collections.abc import Sequence
from typing import Any

import keras

from optimization.keras import effective_rates
from optimization.keras.reported import (
    estimates,
    innermost,
    learning_rates,
    number,
    scheduled_values,
)
from optimization.keras.state import by_unique_name
from optimization.training.errors import first

_CLIPS = {
    "last_gradient_norm": "gradient_norm",
    "clipped_share": "clipped_share",
    "clipped_spikes": "clipped_spikes",
}
# What a graph's assertion makes of the message of `NonFiniteGradientError`, and the message itself.
_NOT_FINITE = re.compile(r"are not finite:\]? \[?([^\]\n]*)")


def accumulated(optimizer: Any, variables: Sequence[keras.Variable]) -> list[keras.Variable | None]:
    """Returns what has been added up for each variable; None for one that is not trained."""
    named = innermost(optimizer).variables_by_path()
    names = by_unique_name([(f"accumulator/{v.path}", v) for v in variables])
    return [named.get(name) for name in names]


def optimizer_values(optimizer: Any) -> dict[str, float]:
    """Returns what belongs in a summary: what follows schedules, clips, skips, the loss scale.

    `micro_batches` is there where accumulation grows: those of the next update.

    `estimated_step_size` is there where an optimizer has one, as Prodigy does its d.

    `effective_learning_rate` is there where steps are relative to the weights, by Adafactor: the
    mean of `optimization.optimizers.effective_learning_rates`.
    """
    inner = innermost(optimizer)
    values = learning_rates(optimizer) | scheduled_values(optimizer) | estimates(optimizer)
    if effective_rates.relative_to_weights(optimizer):
        effective = effective_rates.effective_learning_rates(optimizer)
        values["effective_learning_rate"] = statistics.fmean(effective.values())
    for attribute, name in _CLIPS.items():
        value = getattr(inner, attribute, None)
        if value is not None:
            values[name] = number(value)
    if getattr(inner, "accumulation", None) is not None:
        values["micro_batches"] = int(number(inner.micro_batches))
    for name in ("nonfinite_steps", "skipped_spikes"):
        skipped = getattr(inner, name, 0)
        if not isinstance(skipped, int):  # A variable, if they are counted.
            values[name] = int(number(skipped))
    if inner is not optimizer:
        values["loss_scale"] = number(optimizer.dynamic_scale)
    return values


def nonfinite_variables(error: Exception) -> str | None:
    """Returns the variables that an error of the finite check names; None for another error."""
    match = _NOT_FINITE.search(str(error))
    if match is None:
        return None
    names = re.split(r"[,\s]+", match[1].strip())
    return ", ".join(first(names))
