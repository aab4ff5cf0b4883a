"""What follows the validation of the trainer, a learning rate and a stop, with its state."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from optimization.configs.early_stopping import EarlyStoppingConfig
from optimization.configs.errors import nearest_or_all
from optimization.configs.optimization_config import OptimizationConfig
from optimization.keras.metric_rate import FollowedRate
from optimization.schedules.metric import MetricLrConfig
from optimization.training.checkpoint_files import FOLLOWED
from optimization.training.checkpoints import STOPPING
from optimization.training.errors import TrainingError


def followers(
    config: OptimizationConfig, optimizer: keras.optimizers.Optimizer, stopper: "EarlyStopper"
) -> "dict[str, Follower | EarlyStopper]":
    """Returns what follows the validation, by the name under which a checkpoint has its state."""
    rate = config.learning_rate.get()
    found: dict[str, Follower | EarlyStopper] = {}
    if isinstance(rate, MetricLrConfig):
        found[FOLLOWED] = Follower(rate, optimizer)
    return found | ({STOPPING: stopper} if stopper.config is not None else {})


class Follower:
    """Changes the learning rate after evaluations; `state` is what a checkpoint must hold."""

    stops = False

    def __init__(self, config: MetricLrConfig, optimizer: keras.optimizers.Optimizer):
        with _of_the_rate():  # of a task that makes its own optimizer
            self._rate = FollowedRate(config, optimizer)
        # As text, since the state has numbers of different kinds and a list that grows.
        self.state = tf.Variable(json.dumps(self._rate.machine.state_dict()), trainable=False)

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Takes the results of an evaluation; raises a `TrainingError` if they lack the metric."""
        del step
        # What a checkpoint restored counts.
        self._rate.machine.load_state_dict(json.loads(self.state.numpy()))
        with _of_the_rate():
            self._rate.step(values)
        self.state.assign(json.dumps(self._rate.machine.state_dict()))


class EarlyStopper:
    """Says after evaluations whether the training ends; `state` is what a checkpoint holds.

    Args:
        config: When; None for never.
    """

    def __init__(self, config: EarlyStoppingConfig | None):
        self.config = config
        self._start = {} if config is None else {"metric": config.metric, "higher": config.higher}
        # As text, since there may be no best value yet; a float is exact in it.
        self.state = tf.Variable(json.dumps(self._start), trainable=False)

    def _now(self) -> dict[str, Any]:
        found = json.loads(self.state.numpy())
        # What was the best by another metric says nothing.
        return found if self._start.items() <= found.items() else dict(self._start)

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Takes the results of an evaluation at a training step.

        Raises:
            TrainingError: If they lack the metric.
        """
        config, now = self.config, self._now()
        if config is None:
            return
        if config.metric not in values:
            near = nearest_or_all(config.metric, values)
            raise TrainingError(
                f"trainer.early_stopping.metric: the validation reports no {config.metric!r}{near}"
            )
        value, best = values[config.metric], now.get("best")
        sign = 1.0 if config.higher else -1.0
        if value == value and (best is None or sign * (value - best) > config.min_delta):
            now |= {"best": value, "best_step": step, "waited": 0}
        else:
            now["waited"] = now.get("waited", 0) + 1
        self.state.assign(json.dumps(now))

    @property
    def stops(self) -> bool:
        """Whether there were `patience` evaluations in a row without progress."""
        return self.config is not None and self._now().get("waited", 0) >= self.config.patience

    @property
    def best(self) -> dict[str, Any] | None:
        """The best evaluation so far: its step, the metric that decides, and its value."""
        now = self._now()
        if "best" not in now:
            return None
        values = {now["metric"]: now["best"]}
        return {"step": now["best_step"], "metric": now["metric"], "metrics": values}

    def reason(self) -> str:
        """Returns why the training ended, in words; "" where it has not."""
        now, config = self._now(), self.config
        if config is None:
            return ""
        best = "" if "best" not in now else f" than {now['best']:.4g} at step {now['best_step']}"
        by = f" by more than {config.min_delta:g}" if config.min_delta else ""
        return (
            f"{config.metric} was no better{by}{best} in {now['waited']} evaluations "
            f"(trainer.early_stopping.patience is {config.patience})"
        )


@contextlib.contextmanager
def _of_the_rate() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"trainer.optimizer_config.learning_rate: {error}") from error
