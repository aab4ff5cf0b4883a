"""A learning rate that follows the validation of the trainer, and its place in checkpoints."""

import contextlib
import json
import typing
from collections.abc import Iterator, Mapping

from optimization.schedules.metric import MetricLrConfig
from optimization.training.errors import TrainingError

if typing.TYPE_CHECKING:
    import keras


class Follower:
    """Changes the learning rate after evaluations; `state` is what a checkpoint must hold."""

    def __init__(self, config: MetricLrConfig, optimizer: "keras.optimizers.Optimizer"):
        import tensorflow as tf

        from optimization.keras.metric_rate import FollowedRate

        with _of_the_rate():  # of a task that makes its own optimizer
            self._rate = FollowedRate(config, optimizer)
        # As text, since the state has numbers of different kinds and a list that grows.
        self.state = tf.Variable(self._as_text(), trainable=False)

    def _as_text(self) -> str:
        return json.dumps(self._rate.machine.state_dict())

    def step(self, values: Mapping[str, float]) -> None:
        """Takes the results of an evaluation; raises a `TrainingError` if they lack the metric."""
        # What a checkpoint restored counts.
        self._rate.machine.load_state_dict(json.loads(self.state.numpy()))
        with _of_the_rate():
            self._rate.step(values)
        self.state.assign(self._as_text())


@contextlib.contextmanager
def _of_the_rate() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"trainer.optimizer_config.learning_rate: {error}") from error
