"""Callbacks of Keras: validation with the averaged weights, and learning rates in the logs."""

from typing import Any

import keras

from optimization.keras.pipeline import PipelineOptimizer
from optimization.keras.reported import estimates, learning_rates, scheduled_values


class EvaluateAverages(keras.callbacks.Callback):
    """Has `model.fit` validate with the averages of the weights, and go on with the weights.

    For the optimizers of `OptimizerFactory` that average: with `ema`, with `use_ema`, and the
    schedule-free ones, of which `fit` ends with the averages as the weights (a further `fit` begins
    with the weights again). It also acts on `model.evaluate(callbacks=[...])`.

    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1), ema={"average_decay": 0.9})
    >>> model.compile(optimizer, loss="mse")
    >>> x, y = keras.ops.ones((4, 2)), keras.ops.ones((4, 1))
    >>> callbacks = [EvaluateAverages()]
    >>> fitted = model.fit(x, y, validation_data=(x, y), callbacks=callbacks, verbose=0)

    After a validation the model holds the averages until the next epoch begins, so that every
    other callback finds at the end of the epoch what was scored, in whatever order they are given:
    `ModelCheckpoint(save_best_only=True)` saves it and `EarlyStopping(restore_best_weights=True)`
    brings it back. What is saved then remembers the weights that train: a `fit` with this callback
    goes on from them, and so does one without it after `optimizer.swap()`. Within an epoch
    (`save_freq=100`), and at the end of one without validation, callbacks find the weights that
    train.

    Raises:
        TypeError: When a training or an evaluation begins, if the model's optimizer keeps none.
    """

    _fitting = False
    _swapped_here = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._fitting = False

    def _optimizer(self) -> PipelineOptimizer:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if not getattr(optimizer, "averages_weights", False):
            raise TypeError(
                "`EvaluateAverages` needs an optimizer that averages weights, such as one with an "
                f"`ema` section, received: {type(optimizer).__name__}"
            )
        return optimizer

    def on_train_begin(self, logs: Any = None) -> None:
        self._fitting = True
        self._optimizer().end_evaluation()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._optimizer().end_evaluation()

    def on_test_begin(self, logs: Any = None) -> None:
        optimizer = self._optimizer()
        if optimizer.built and not optimizer.is_swapped():
            optimizer.begin_evaluation()
            self._swapped_here = True

    def on_test_end(self, logs: Any = None) -> None:
        if self._swapped_here and not self._fitting:
            self._optimizer().end_evaluation()
        self._swapped_here = False


class LearningRateLogger(keras.callbacks.Callback):
    """Puts the learning rate into the logs of `model.fit`, for its history and other callbacks.

    Under `learning_rate`, and `learning_rate/NAME` for each parameter group where there are
    several; what else follows a schedule under the optimizer's name of it, such as `momentum`; and
    the step size that an optimizer estimates, Prodigy's d, under `estimated_step_size`. The values
    are those of the next update, as the trainer's summaries have them. Callbacks that come later in
    the list find them: give it first.

    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile(PipelineOptimizer(keras.optimizers.SGD(0.5)), loss="mse")
    >>> x, y = keras.ops.ones((4, 2)), keras.ops.ones((4, 1))
    >>> model.fit(x, y, callbacks=[LearningRateLogger()], verbose=0).history["learning_rate"]
    [0.5]

    Args:
        per_batch: Whether the logs of each batch have them too. That takes a schedule's time after
            each batch, and on JAX has the model's state brought back.
    """

    def __init__(self, per_batch: bool = False):
        super().__init__()
        self.per_batch = per_batch

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'per_batch=True' if self.per_batch else ''})"

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self.per_batch:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            self._put(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._put(logs)

    def _put(self, logs: dict[str, float] | None) -> None:
        if logs is not None:
            optimizer = self.model.optimizer
            values = learning_rates(optimizer) | scheduled_values(optimizer)
            logs.update(values | estimates(optimizer))
