"""`WarmUp` of transformers' TensorFlow part."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from optimization.configs import printing
from optimization.schedules.scaled import rate_text


@keras.saving.register_keras_serializable(package="optimization.transformers")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A power of the steps up to a rate, and then a schedule from its own step 0 on.

        lr(s) = initial_learning_rate * (s / warmup_steps) ** power    for s < warmup_steps
        lr(s) = decay_schedule_fn(s - warmup_steps)                    then

    The warmup delays the decay: in a config it is `mode: delay` of a warmup.

    >>> rate = WarmUp(0.5, lambda step: 0.5, warmup_steps=10)
    >>> float(rate(5))
    0.25

    Args:
        initial_learning_rate: The rate to which the warmup leads.
        decay_schedule_fn: A Keras schedule, or any function of the optimizer step, which then must
            be known to Keras for saving.
        warmup_steps: The length of the warmup in optimizer steps; 0 for none.
        power: The power.
        name: The name of the operations.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_schedule_fn: Callable[[Any], Any],
        warmup_steps: int,
        power: float = 1.0,
        name: str | None = None,
    ):
        super().__init__()
        self.initial_learning_rate = initial_learning_rate
        self.decay_schedule_fn = decay_schedule_fn
        self.warmup_steps, self.power, self.name = warmup_steps, power, name

    def __call__(self, step: Any) -> Any:
        with keras.name_scope(self.name or "WarmUp"):
            step = ops.convert_to_tensor(step)
            # Both are computed: the schedule sees no step before its first.
            late = self.decay_schedule_fn(ops.maximum(step - self.warmup_steps, 0))
            late = ops.cast(late, "float32")
            if not self.warmup_steps:
                return late
            done = ops.cast(step, "float32") / float(self.warmup_steps)
            early = self.initial_learning_rate * ops.power(done, float(self.power))
            return ops.where(step < self.warmup_steps, early, late)

    def __repr__(self) -> str:
        values = {**vars(self), "decay_schedule_fn": rate_text(self.decay_schedule_fn)}
        return printing.call(type(self).__name__, **printing.differing(self, values))

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_schedule_fn": keras.saving.serialize_keras_object(self.decay_schedule_fn),
            "warmup_steps": self.warmup_steps,
            "power": self.power,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        decay = config["decay_schedule_fn"]
        if not callable(decay):
            decay = keras.saving.deserialize_keras_object(decay)
        return cls(**{**config, "decay_schedule_fn": decay})
