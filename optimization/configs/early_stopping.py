"""`EarlyStoppingConfig` says when a training that no longer gets better ends."""

from collections.abc import Iterator
from typing import Literal

from optimization.configs.base import Config
from optimization.configs.types import REQUIRED, NonNegativeFloat, PositiveInt


class EarlyStoppingConfig(Config):
    """Ends a training after `patience` evaluations in a row that were no better than the best.

    A value is better than the best before if it is lower, or higher with `mode: max`, by more than
    `min_delta`; NaN never is. The count is part of every checkpoint: a run that is resumed stops
    where it would have stopped.

    >>> EarlyStoppingConfig(metric="accuracy", mode="max", patience=3).min_delta
    0.0

    Attributes:
        metric: What the validation reports: "loss" or the name of a metric.
        patience: Evaluations, one every `validation_interval` steps; required.
        min_delta: By how much a value must be better, as a difference.
        mode: Whether the least (`min`) or the greatest (`max`) value is the best; None is `min`
            for the loss, and must be set for any other metric.
    """

    metric: str = "loss"
    patience: PositiveInt = REQUIRED
    min_delta: NonNegativeFloat = 0.0
    mode: Literal["min", "max"] | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        if self.mode is None and self.metric != "loss":
            yield "mode", f"must be `min` or `max`: which values of {self.metric!r} are better?"

    @property
    def higher(self) -> bool:
        """Whether the greatest value is the best."""
        return self.mode == "max"
