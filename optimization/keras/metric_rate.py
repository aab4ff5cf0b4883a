"""Learning rates that follow a metric, on a Keras optimizer."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from optimization.configs import printing
from optimization.configs.optimization_config import OptimizationConfig
from optimization.schedules.followers import MetricFollower
from optimization.schedules.metric import MetricLrConfig


class FollowedRate:
    """The learning rate of an optimizer, which a state machine changes.

    The machine counts in float64, the optimizer has a float32 variable. What else sets that
    variable is noticed, and gone on from.
    """

    def __init__(self, config: MetricLrConfig, optimizer: keras.optimizers.Optimizer):
        self.config = config
        self._owner = owner_of(optimizer)
        start, exact = self.value, config.initial_learning_rate
        self.machine: MetricFollower = config.follower([exact if _same(exact, start) else start])

    def step(self, values: Mapping[str, float], prefix: str = "") -> None:
        """Takes what an evaluation reports, with a prefix to names, and sets the learning rate."""
        name = prefix + self.config.metric
        if name not in values:
            reported = [k.removeprefix(prefix) for k in sorted(values) if k.startswith(prefix)]
            raise ValueError(
                f"the learning rate follows the metric {self.config.metric!r}; the validation "
                f"reports {', '.join(reported) or 'nothing'}"
            )
        if not _same(self.machine.rates[0], self.value):
            self.machine.rates = [self.value]
        self.machine.step(float(values[name]))
        self.set()

    @property
    def value(self) -> float:
        """The optimizer's learning rate."""
        return float(keras.ops.convert_to_numpy(self._owner.learning_rate))

    def set(self) -> None:
        self._owner.learning_rate = self.machine.rates[0]


def owner_of(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns what has the variable: the optimizer, or the innermost of those it wraps."""
    for attribute in ("inner_optimizer", "optimizer"):
        inner = getattr(optimizer, attribute, None)
        if isinstance(inner, keras.optimizers.Optimizer):
            return owner_of(inner)
    if not isinstance(optimizer._learning_rate, keras.Variable):
        raise ValueError(
            "a learning rate that follows a metric must be a number in the optimizer, received: "
            f"{optimizer._learning_rate!r}"
        )
    return optimizer


def _same(exact: float, stored: float) -> bool:
    return float(np.float32(exact)) == stored


class MetricLearningRate(keras.callbacks.Callback):
    """Has the learning rate follow a metric of the validation in `model.fit`.

    >>> plateau = {"initial_learning_rate": 0.5, "patience": 2}
    >>> rate = {"type": "hf_reduce_lr_on_plateau", "hf_reduce_lr_on_plateau": plateau}
    >>> config = OptimizationConfig({"optimizer": {"type": "sgd"}, "learning_rate": rate})
    >>> callbacks = [MetricLearningRate(config)]  # for `model.fit(validation_data=...)`

    After each epoch it takes the value of `metric`, which Keras reports with "val_" before its
    name, and sets the optimizer's learning rate. It goes on where the last `fit` ended; where
    another process did, `load_state_dict` before.

    Args:
        config: An `OptimizationConfig`, or its learning rate section, of a type that follows a
            metric.
        validation_freq: The number that `fit` has of that name: how many epochs come to each
            validation. The others count for nothing.

    Raises:
        TypeError: If its learning rate is of another type.
        ValueError: For a `validation_freq` below 1. In `fit`, if the optimizer's learning rate is a
            schedule, or an epoch with a validation does not report the metric.
    """

    def __init__(self, config: OptimizationConfig | MetricLrConfig, validation_freq: int = 1):
        super().__init__()
        if validation_freq < 1:
            raise ValueError(
                f"Argument `validation_freq` must be >= 1, received: {validation_freq=}"
            )
        section = config.learning_rate.get() if isinstance(config, OptimizationConfig) else config
        if not isinstance(section, MetricLrConfig):
            raise TypeError(
                "Argument `config` must have a learning rate that follows a metric, "
                f"received: {type(section).__name__}"
            )
        section.validate()
        self._config = section
        self._validation_freq = validation_freq
        self._rate: FollowedRate | None = None
        self._optimizer: keras.optimizers.Optimizer | None = None
        self._state: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        frequency = {"validation_freq": self._validation_freq}
        return printing.call(
            type(self).__name__, self._config, **printing.differing(self, frequency)
        )

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes the model's optimizer, at its start or where it is."""
        if self._rate is None or self._optimizer is not self.model.optimizer:
            self._optimizer = self.model.optimizer
            self._rate = FollowedRate(self._config, self._optimizer)
        if self._state is not None:
            self._rate.machine.load_state_dict(self._state)
            self._rate.set()
            self._state = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Takes the results of the epoch's validation; reports the epoch's learning rate."""
        logs = {} if logs is None else logs
        if self._rate is None:
            raise RuntimeError("an epoch ends, but no training has begun")
        logs["learning_rate"] = self._rate.value
        if (epoch + 1) % self._validation_freq == 0:
            self._rate.step(logs, "val_")

    def state_dict(self) -> dict[str, Any]:
        """Returns the state, as numbers and lists; that of the start is empty."""
        return dict(self._state or {}) if self._rate is None else self._rate.machine.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned when the next `fit` begins."""
        self._state = dict(state) or None
