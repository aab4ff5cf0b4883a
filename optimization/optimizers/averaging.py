"""What `PipelineOptimizer` lets a user do with the averages of the weights."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from optimization.optimizers import distribution, paths
from optimization.optimizers.ema import WeightAverage
from optimization.optimizers.iterate_average import IterateAverage


class AveragedWeights:
    """Mixin for an optimizer that keeps an average of the weights, or None, in `_average`."""

    _average: WeightAverage | IterateAverage | None
    _evaluates = False

    @property
    def ema(self) -> dict[str, Any] | None:
        """The arguments of the weight average; None for none, and for a schedule-free one."""
        return None if self._average is None else self._average.get_config()

    @property
    def averages_weights(self) -> bool:
        """Whether there is an average, of `ema` or of a schedule-free optimizer."""
        return self._average is not None

    def is_swapped(self) -> bool:
        """Says whether the model holds the averages at present."""
        return self._average is not None and self._average.is_swapped()

    def _require_average(self) -> WeightAverage | IterateAverage:
        if self._average is None:
            raise ValueError("This optimizer keeps no weight average: it was made with ema=None.")
        return self._average

    def shadow_copy(self, model: keras.Model) -> None:
        """Gives the average all weights of a built model, before the first step.

        Needed with `trainable_weights_only=False`, harmless otherwise. Builds the optimizer.

        Raises:
            ValueError: If there is no average, or if the model is not built.
        """
        average = self._require_average()
        if not model.built:
            raise ValueError("`shadow_copy` needs a built model: its weights must exist.")
        self.build(model.trainable_variables)
        if not average.trainable_weights_only:
            others = average.other_weights(model)
            saved = self._saved_paths and self._saved_paths[len(self._paths) :]
            other_paths = paths.settled(others, saved)
            with distribution.creation_scope(self), paths.known_as(others, other_paths):
                average.add(self, others)
            self._paths = self._paths + other_paths

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Ends a training, as `model.fit` does.

        With `use_ema` the weights become their averages. With a schedule-free optimizer they are
        swapped for them: a further training needs a `swap()`, or the callback `EvaluateAverages`.

        Args:
            var_list: The model's trainable variables, which the average knows.

        Raises:
            RuntimeError: If the weights are swapped with their averages.
        """
        del var_list
        if self._average is not None and self.built:
            self._fill_copies()
            if self._evaluates:
                self.end_evaluation()
            self._average.finalize()

    def swap(self) -> None:
        """Exchanges the weights and their averages; a second call restores them bit for bit.

        While they are swapped, a step is an error.
        """
        average = self._require_average()
        if not self.built:
            raise ValueError("The optimizer is not built: there are no averages yet.")
        self._fill_copies()
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
        if self._require_average().is_swapped():
            raise RuntimeError("The weights are swapped with their averages already.")
        self.swap()
        try:
            yield
        finally:
            self.swap()

    averaged_weights = averaged  # its name in earlier versions
