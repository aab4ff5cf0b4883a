"""A factor on a learning rate, the `decay` of Keras' former SGD, and a start, as a schedule."""

from typing import Any

import keras
import numpy as np

from optimization.configs import printing


@keras.saving.register_keras_serializable(package="optimization")
class ScaledLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate times a factor, divided by 1 + decay * step, that may start later.

        lr(step) = factor * learning_rate(s) / (1 + decay * s),  s = max(step - start, 0)

    Args:
        learning_rate: A float or a Keras schedule.
        factor: At step 0 the rate is that of `learning_rate` times this.
        decay: In units of 1 / optimizer step; 0 for none.
        name: The name of the schedule.
        start: The optimizer step at which the schedule starts; its first value holds until then.
    """

    def __init__(
        self,
        learning_rate: Any,
        factor: float = 1.0,
        decay: float = 0.0,
        name: str = "ScaledLearningRate",
        start: int = 0,
    ):
        super().__init__()
        self.learning_rate, self.factor, self.decay = learning_rate, factor, decay
        self.name, self.start = name, start

    def __call__(self, step: Any) -> Any:
        if self.start:  # in the dtype of the step, in which all steps are exact
            step = keras.ops.maximum(step - self.start, 0)
        lr = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        lr = lr * self.factor
        return lr / (1.0 + self.decay * keras.ops.cast(step, "float32")) if self.decay else lr

    def __repr__(self) -> str:
        usual = {"factor": self.factor, "decay": self.decay, "start": self.start}
        arguments = printing.differing(self, usual)
        return printing.call(type(self).__name__, rate_text(self.learning_rate), **arguments)

    def _repr_html_(self) -> str:
        from optimization.schedules.keras_schedules import html_of

        return html_of(self)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": keras.saving.serialize_keras_object(self.learning_rate),
            "factor": self.factor,
            "decay": self.decay,
            "name": self.name,
            **({"start": self.start} if self.start else {}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScaledLearningRate":
        learning_rate = keras.saving.deserialize_keras_object(config["learning_rate"])
        return cls(**{**config, "learning_rate": learning_rate})


def scaled(learning_rate: Any, factor: float = 1.0, decay: float = 0.0, start: int = 0) -> Any:
    """Returns `learning_rate` with a factor, a decay and a start; a float stays one if it can."""
    if not decay and isinstance(learning_rate, float):
        return learning_rate if factor == 1.0 else learning_rate * factor
    if not decay and factor == 1.0 and not start:
        return learning_rate
    return ScaledLearningRate(learning_rate, factor, decay, start=start)


def rate_text(rate: Any) -> printing.Text:
    """Returns a learning rate as a text: a number, or a schedule with its arguments."""
    if isinstance(rate, keras.Variable):
        try:
            rate = keras.ops.convert_to_numpy(rate)
        except Exception:  # in a graph
            return printing.Text("a variable")
        return printing.Text(np.float32(rate))
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return printing.function(rate)
    if type(rate).__repr__ is object.__repr__:  # Keras' own print their addresses
        return printing.Text(printing.by_arguments(rate))
    return printing.Text(repr(rate))
