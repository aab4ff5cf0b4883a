"""A Keras callback: validation during `model.fit` sees the averaged weights."""

from typing import Any

import keras

from optimization.optimizers.averaging import AveragedWeights


class EvaluateAverages(keras.callbacks.Callback):
    """Has `model.fit` validate with the averages of the weights, and go on with the weights.

    For the optimizers of `OptimizerFactory` that average: with `ema`, with `use_ema`, and the
    schedule-free ones, of which `fit` ends with the averages as the weights (a further `fit` begins
    with the weights again). It also acts on `model.evaluate(callbacks=[...])`.

        model.fit(x, y, validation_data=..., callbacks=[EvaluateAverages()])

    Raises:
        TypeError: When a training or an evaluation begins, if the model's optimizer keeps none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._swapped_here = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _optimizer(self) -> AveragedWeights:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if not getattr(optimizer, "averages_weights", False):
            raise TypeError(
                "`EvaluateAverages` needs an optimizer that averages weights, such as one with an "
                f"`ema` section, received: {type(optimizer).__name__}"
            )
        return optimizer

    def on_train_begin(self, logs: Any = None) -> None:
        """Makes the weights train that did before a training ended."""
        optimizer = self._optimizer()
        if optimizer.is_swapped():
            optimizer.swap()

    def on_test_begin(self, logs: Any = None) -> None:
        """Has the model use the averages, if there are any yet."""
        optimizer = self._optimizer()
        if optimizer.built and not optimizer.is_swapped():
            optimizer.swap()
            self._swapped_here = True

    def on_test_end(self, logs: Any = None) -> None:
        """Gives the model its weights back."""
        if self._swapped_here:
            self._optimizer().swap()
            self._swapped_here = False
