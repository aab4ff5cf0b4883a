"""`Evaluation`: what the validation data say of the weights that a model holds."""

import contextlib
import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from optimization.training import metrics
from optimization.training.checkpoints import BestCheckpoint
from optimization.training.errors import TrainingError
from optimization.training.inspection import averages, innermost
from optimization.training.progress import format_values, say

if typing.TYPE_CHECKING:
    import keras

    from optimization.training.loop import Steps


@dataclasses.dataclass
class Evaluation:
    """Evaluates a model on the validation data, and says what came of it.

    Args:
        steps: What runs the model.
        means: The metrics, beside the loss.
        optimizer: The optimizer, which may hold averages of the weights.
        batches: Makes the validation data, when they are needed first.
        best: What keeps the best weights; None if nothing does.
        console: Where the values are written.
    """

    steps: "Steps"
    means: "list[keras.metrics.Metric]"
    optimizer: "keras.optimizers.Optimizer"
    batches: Callable[[], Any]
    best: BestCheckpoint | None
    console: Console

    def run(self, step: int) -> dict[str, float]:
        """Evaluates the averages after `step` steps, or else the weights, and keeps the best."""
        with self._averaged_weights() as averaged:
            values = self._values()
            best = self.best is not None and self.best.offer(values, step)
        self._say(values, step, averaged, best)
        return values

    def aside(self, step: int, as_they_are: bool) -> dict[str, float]:
        """Evaluates and keeps nothing; the weights `as_they_are` may be averages already."""
        with contextlib.nullcontext() if as_they_are else self._averaged_weights():
            values = self._values()
        self._say(values, step, averages(self.optimizer))
        return values

    def _values(self) -> dict[str, float]:
        """Returns the loss and the metrics of the weights that the model holds."""
        self.steps.validation_means.reset()
        metrics.reset(self.means)
        self.steps.validate(iter(self._data))
        values = self.steps.validation_means.result() | metrics.results(self.means)
        if not values or values["loss"] != values["loss"]:
            raise TrainingError("the loss of the evaluation is NaN, or it had no examples")
        return values

    @functools.cached_property
    def _data(self) -> Any:
        return self.batches()

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[bool]:
        """Puts the averages in the place of the weights; yields whether there are any."""
        if not averages(self.optimizer):
            yield False
            return
        with innermost(self.optimizer).averaged():
            yield True

    def _say(self, values: dict[str, float], step: int, averaged: bool, best: bool = False) -> None:
        notes = [note for note, holds in (("averaged weights", averaged), ("best", best)) if holds]
        note = f"  ({', '.join(notes)})" if notes else ""
        say(self.console, f"validation at step {step}  {format_values(values)}{note}")
