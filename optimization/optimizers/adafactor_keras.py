"""Keras' Adafactor, with `relative_step` doing what Keras documents."""

from typing import Any

import keras
from keras import ops

from optimization.optimizers.rates import is_schedule
from optimization.optimizers.slots import compute_dtype


@keras.saving.register_keras_serializable(package="optimization")
class AdafactorKeras(keras.optimizers.Adafactor):
    """`keras.optimizers.Adafactor` whose `relative_step` and schedules are honored.

    Keras documents that a constant learning rate with `relative_step=True` is adjusted by the
    current iteration, but its code caps every rate. Here, with t = iterations + 1, the rate is

        min(lr, 1 / sqrt(t))     if the learning rate is a constant and relative_step is True
        lr                       with a schedule, or with relative_step=False

    All arguments are those of `keras.optimizers.Adafactor`.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its moments."""
        capped = self.relative_step and not is_schedule(self._learning_rate)
        if not capped:
            # The parent's step is linear in the rate, which it caps at 1/sqrt(t). What the cap
            # takes away is given back where the step is subtracted, by `assign_sub`.
            dtype = compute_dtype(variable)
            t = ops.cast(self.iterations + 1, dtype)
            self._beyond_cap = ops.maximum(ops.cast(learning_rate, dtype) * ops.sqrt(t), 1.0)
        try:
            super().update_step(gradient, variable, learning_rate)
        finally:
            self._beyond_cap = None

    def assign_sub(self, variable: Any, value: Any) -> None:
        """Subtracts the parent's step, scaled to the rate that was asked for."""
        if getattr(self, "_beyond_cap", None) is not None:
            value = value * ops.cast(self._beyond_cap, value.dtype)
        super().assign_sub(variable, value)
