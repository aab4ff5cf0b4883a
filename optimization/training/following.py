"""A learning rate that follows the validation of the trainer, and its place in checkpoints."""

import json
import typing
from collections.abc import Mapping

from optimization.configs.optimization_config import OptimizationConfig
from optimization.schedules.metric import MetricLrConfig
from optimization.training.errors import TrainingError

if typing.TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Follower:
    """Changes the learning rate after evaluations, where the config asks for that.

    Args:
        config: The optimizer section.
        optimizer: The optimizer, at its start.

    Raises:
        TrainingError: If a rate that follows a metric is not the optimizer's.
    """

    def __init__(self, config: OptimizationConfig, optimizer: "keras.optimizers.Optimizer"):
        section = config.learning_rate.get()
        self.follows = isinstance(section, MetricLrConfig)
        if not self.follows:
            return
        import tensorflow as tf

        from optimization.keras.metric_rate import FollowedRate

        try:
            self._rate = FollowedRate(section, optimizer)
        except ValueError as error:  # of a task that makes its own optimizer
            raise TrainingError(f"trainer.optimizer_config.learning_rate: {error}") from error
        # As text, since the state has numbers of different kinds and a list that grows.
        self._state = tf.Variable(self._as_text(), trainable=False)

    def _as_text(self) -> str:
        return json.dumps(self._rate.machine.state_dict())

    def variables(self) -> "dict[str, tf.Variable]":
        """Returns what a checkpoint must hold, by name."""
        return {"learning_rate_state": self._state} if self.follows else {}

    def check(self, evaluates: bool) -> None:
        """Raises a TrainingError if the rate follows evaluations and there are none."""
        if self.follows and not evaluates:
            raise TrainingError(
                "trainer.optimizer_config.learning_rate: the rate follows a metric of the "
                "validation: train with `evaluate=True`"
            )

    def step(self, values: Mapping[str, float]) -> None:
        """Takes the results of an evaluation.

        Raises:
            TrainingError: If the metric is not among them.
        """
        if not self.follows:
            return
        # What a checkpoint restored counts.
        self._rate.machine.load_state_dict(json.loads(self._state.numpy()))
        try:
            self._rate.step(values)
        except ValueError as error:
            raise TrainingError(f"trainer.optimizer_config.learning_rate: {error}") from error
        self._state.assign(self._as_text())
