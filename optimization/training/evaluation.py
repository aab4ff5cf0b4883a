"""`Evaluation`: what the validation data say of the weights that a model holds."""

import contextlib
import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any

from rich.console import Console

from optimization.training.checkpoints import BestCheckpoint
from optimization.training.errors import TrainingError
from optimization.training.inspection import averages, innermost
from optimization.training.progress import format_values, say
from optimization.training.summaries import SummaryWriter

if typing.TYPE_CHECKING:
    import keras

    from optimization.training.loop import Steps


@dataclasses.dataclass
class Evaluation:
    """Evaluates a model on the validation data, and says what came of it.

    Args:
        steps: What runs the model.
        optimizer: The optimizer, which may hold averages of the weights.
        batches: Makes the validation data, when they are needed first.
        best: What keeps the best weights; None if nothing does.
        writer: Where the summaries go.
        console: Where the values are written.
    """

    steps: "Steps"
    optimizer: "keras.optimizers.Optimizer"
    batches: Callable[[], Any]
    best: BestCheckpoint | None
    writer: SummaryWriter
    console: Console

    def run(self, step: int, record: bool = True, alone: bool = False) -> dict[str, float]:
        """Evaluates the averages after `step` steps, or else the weights.

        Args:
            step: The training steps that are done.
            record: Whether the summaries are written, and the best weights kept.
            alone: Whether the weights were restored alone, and are averages already.
        """
        averaged = averages(self.optimizer)
        swaps = averaged and not alone
        with innermost(self.optimizer).averaged() if swaps else contextlib.nullcontext():
            values = self._values()
            best = record and self.best is not None and self.best.offer(values, step)
        notes = [note for note, holds in (("averaged weights", averaged), ("best", best)) if holds]
        note = f"  ({', '.join(notes)})" if notes else ""
        say(self.console, f"validation at step {step}  {format_values(values)}{note}")
        if record:
            self.writer.write(values, step)
        return values

    def _values(self) -> dict[str, float]:
        """Returns the loss and the metrics of the weights that the model holds."""
        means = self.steps.validation_means
        means.reset()
        self.steps.validate(iter(self._data))
        values = means.results()
        if not values or values["loss"] != values["loss"]:
            raise TrainingError("the loss of the evaluation is NaN, or it had no examples")
        return values

    @functools.cached_property
    def _data(self) -> Any:
        return self.batches()


def labeled(values: dict[str, float]) -> dict[str, float]:
    """Returns the values of an evaluation under names for a place beside those of training."""
    return {f"validation {name}": value for name, value in values.items()}
