"""A learning rate that follows the validation of the trainer, and its place in checkpoints."""

import contextlib
import json
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

from optimization.keras.metric_rate import FollowedRate
from optimization.schedules.metric import MetricLrConfig
from optimization.training.errors import TrainingError


class Follower:
    """Changes the learning rate after evaluations; `state` is what a checkpoint must hold."""

    def __init__(self, config: MetricLrConfig, optimizer: keras.optimizers.Optimizer):
        with _of_the_rate():  # of a task that makes its own optimizer
            self._rate = FollowedRate(config, optimizer)
        # As text, since the state has numbers of different kinds and a list that grows.
        self.state = tf.Variable(json.dumps(self._rate.machine.state_dict()), trainable=False)

    def step(self, values: Mapping[str, float]) -> None:
        """Takes the results of an evaluation; raises a `TrainingError` if they lack the metric."""
        # What a checkpoint restored counts.
        self._rate.machine.load_state_dict(json.loads(self.state.numpy()))
        with _of_the_rate():
            self._rate.step(values)
        self.state.assign(json.dumps(self._rate.machine.state_dict()))


@contextlib.contextmanager
def _of_the_rate() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"trainer.optimizer_config.learning_rate: {error}") from error
