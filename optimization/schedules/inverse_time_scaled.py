"""The `decay` of Keras' former SGD, as a schedule."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="optimization")
class InverseTimeScaled(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate divided by 1 + decay * step.

        lr(step) = learning_rate(step) / (1 + decay * step)

    Args:
        learning_rate: A float or a Keras schedule.
        decay: In units of 1 / optimizer step; at step 0 the rate is unchanged.
        name: The name of the schedule.
    """

    def __init__(self, learning_rate: Any, decay: float, name: str = "InverseTimeScaled"):
        super().__init__()
        self.learning_rate = learning_rate
        self.decay = decay
        self.name = name

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate after `step` optimizer steps."""
        lr = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        return lr / (1.0 + self.decay * keras.ops.cast(step, "float32"))

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` builds an equal schedule from."""
        return {
            "learning_rate": keras.saving.serialize_keras_object(self.learning_rate),
            "decay": self.decay,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "InverseTimeScaled":
        """Builds the schedule from what `get_config` returned."""
        learning_rate = keras.saving.deserialize_keras_object(config["learning_rate"])
        return cls(**{**config, "learning_rate": learning_rate})
