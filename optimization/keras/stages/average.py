"""The stage that averages the weights, and what a user can do with the averages."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from optimization.configs import printing
from optimization.keras.ema import WeightAverage, deserialized, serialized
from optimization.keras.stages.stage import Batch, Rest, Stage, argument
from optimization.keras.stages.update import Update
from optimization.keras.swapping import KEPT, IterateAverage, averages_iterates


class Average(Stage):
    """Keeps an average of the weights: a `WeightAverage`, or that of a schedule-free optimizer."""

    title = "weight average"
    sees = "the new weights and the count of updates"
    set_by = "`ema`, `use_ema` (a schedule-free optimizer averages in its update)"
    shows = (
        *("averages_weights", "is_swapped", "shadow_copy", "swap", "averaged", "averaged_weights"),
        *("begin_evaluation", "end_evaluation"),
    )
    settable = False
    kept_under = KEPT

    ema: Mapping[str, Any] | None = argument(
        None,
        "Arguments of `WeightAverage`, or None for no average but that of a schedule-free "
        "optimizer.",
        save=lambda ema: ema and serialized(ema),
        load=lambda saved: saved and deserialized(saved),
        text=lambda ema: ema and printing.Text(repr(WeightAverage(**ema))),
    )

    def __post_init__(self) -> None:
        self._average: WeightAverage | IterateAverage | None = None
        if self.ema is not None:
            self._average = WeightAverage(**self.ema)
            self.ema = self._average.get_config()
        self._evaluates = False

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        update = pipeline.stage(Update)
        if any(map(averages_iterates, update.members.own_optimizers())):
            if self.ema is not None:
                raise ValueError(
                    "Argument `ema` must be None with a schedule-free optimizer, which averages "
                    f"by itself, received: ema={self.ema}"
                )
            self._average = IterateAverage(update.members, update.masters)
        update.average = self._average
        if self._average is not None:
            self.weights = self._average.weights
        self._masters = update.masters

    # State

    def set_model(self, model: keras.Model) -> None:
        if self._average is not None:
            self.shadow_copy(model)

    def build(self, variables: Sequence[Any]) -> None:
        if self._average is not None:
            self._average.build(self.pipeline, variables)

    def variables_by_path(self) -> dict[str, keras.Variable]:
        if self._average is None or self._average.swapped is None:
            return {}
        return self._average.variables_by_path()

    @property
    def loads_later(self) -> str | None:
        return None if self._average is None else self._average.loads_later

    def kept(self) -> dict[str, Any]:
        return {} if self._average is None or not self.pipeline.built else self._average.kept()

    def keep(self, values: Mapping[str, Any]) -> None:
        if self._average is not None:
            self._average.keep(values, self.pipeline.variable_paths)

    def load_later(self, values: dict[str, Any]) -> None:
        if isinstance(self._average, WeightAverage):
            self._average.waiting = values

    # Its part of a step

    def guard(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._average is None else self._average.guard()

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if self._average is not None:
            steps = self.pipeline.iterations
            self._average.move(steps, batch.moved)
            self._average.overwrite(steps, self._masters.of(self._average.weights))
        rest(batch)

    def finalize(self) -> None:
        if self._average is not None:
            if self._evaluates:
                self.end_evaluation()
            self._average.finalize()

    # For the user

    @property
    def averages_weights(self) -> bool:
        """Whether there is an average, of `ema` or of a schedule-free optimizer."""
        return self._average is not None

    def is_swapped(self) -> bool:
        """Says whether the model holds the averages at present."""
        return self._average is not None and self._average.is_swapped()

    def _required(self) -> WeightAverage | IterateAverage:
        if self._average is None:
            raise ValueError("This optimizer keeps no weight average: it was made with ema=None.")
        return self._average

    def shadow_copy(self, model: keras.Model) -> None:
        """Gives the average all weights of a built model, before the first step.

        Needed with `trainable_weights_only=False`, harmless otherwise. Builds the optimizer.

        Raises:
            ValueError: If there is no average, or if the model is not built.
        """
        average = self._required()
        if not model.built:
            raise ValueError("`shadow_copy` needs a built model: its weights must exist.")
        self.pipeline.build(model.trainable_variables)
        if isinstance(average, WeightAverage) and not average.trainable_weights_only:
            average.add_others(self.pipeline, model)

    def swap(self) -> None:
        """Exchanges the weights and their averages; a second call restores them bit for bit.

        While they are swapped, a step is an error.
        """
        average = self._required()
        if not self.pipeline.built:
            raise ValueError("The optimizer is not built: there are no averages yet.")
        self.pipeline.fill_copies()
        average.swap()

    def begin_evaluation(self) -> None:
        """Swaps, until `end_evaluation` or the end of a `fit`."""
        self.swap()
        self._evaluates = True

    def end_evaluation(self) -> None:
        """Gives the model the weights that train, if it holds the averages."""
        self._evaluates = False
        if self.is_swapped():
            self.swap()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Has the model use the averaged weights inside a `with` block.

            with optimizer.averaged():
                model.evaluate(x, y)
                model.export("averaged")

        Raises:
            RuntimeError: If they are swapped already.
        """
        if self._required().is_swapped():
            raise RuntimeError("The weights are swapped with their averages already.")
        self.swap()
        try:
            yield
        finally:
            self.swap()

    averaged_weights = averaged  # its name in earlier versions
