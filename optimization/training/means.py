"""Means of what steps return, and Keras' metrics, which a checkpoint may hold half-way."""

import base64
import json
from typing import Any

import keras
import tensorflow as tf

from optimization.keras.compiling import unconverted
from optimization.keras.state import by_unique_name
from optimization.training.checkpoints import by_path

COUNT = "number of examples"
_ROOM = 1024


class Means:
    """Running means of named scalars, weighted by examples, and Keras' metrics beside them.

    Others update the metrics. A checkpoint has what was added since the last `reset`, so that a
    run that goes on reports what one that never stopped reports.

    Args:
        metrics: Metrics of Keras.
        finite_only: Whether a batch whose loss is not finite is left out.
        strategy: That of which the replicas update the metrics; None for one replica.

    Attributes:
        state: What a checkpoint holds: `keep` sets it, `take` goes on from it.
    """

    def __init__(
        self,
        metrics: list[keras.metrics.Metric] | None = None,
        finite_only: bool = False,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self.metrics = metrics or []
        self._finite_only = finite_only
        self._strategy = strategy or tf.distribute.get_strategy()
        # Which names there are is known only when the first step is traced. Variables that were
        # made then would have TensorFlow trace the whole loop a second time, so there is one, made
        # before, with room for all.
        self._names: list[str] = []
        self._sums = tf.Variable(tf.zeros(_ROOM), trainable=False)
        # As text, since names and some metrics are not there before the first step.
        self.state = tf.Variable("", trainable=False)
        self._gather = tf.function(self._gathered, autograph=False)
        self._is_new = False  # whether `take` was the last that happened
        # For metrics of which the first step makes the variables.
        self._waiting: dict[str, dict[str, str]] = {}

    @unconverted
    def add(self, sums: dict[str, Any]) -> None:
        """Adds sums over examples and their count; inside or outside of a `tf.function`."""
        if len(sums) > _ROOM:
            raise ValueError(f"a step may return {_ROOM - 1} numbers at most, got {len(sums) - 1}")
        if self._is_new:
            traced = tf.inside_function()
            with tf.init_scope():  # before what is traced here runs
                self._meet(sums, traced)
        self._names = self._names or list(sums)
        values = tf.stack([sums[name] for name in self._names])
        if self._finite_only:
            values = tf.where(tf.math.is_finite(sums["loss"]), values, 0.0)
        self._sums.assign_add(tf.pad(values, [[0, _ROOM - len(sums)]]))

    def result(self) -> dict[str, float]:
        """Returns the means so far, NaN for those of no examples."""
        sums = dict(zip(self._names, self._sums.numpy().tolist(), strict=False))
        count = sums.pop(COUNT, 0.0)
        return {name: total / count if count else float("nan") for name, total in sums.items()}

    def results(self) -> dict[str, float]:
        """Returns the means and the metrics; one with several values has each as `name/part`."""
        values = self.result()
        for metric in self.metrics:
            value = metric.result()
            parts = value if isinstance(value, dict) else {"": value}
            for part, number in parts.items():
                name = f"{metric.name}/{part}" if part else metric.name
                if getattr(number, "shape", ()) != ():
                    raise ValueError(
                        f"the metric {name!r} must be a scalar, or a mapping of scalars, "
                        f"received: shape {tuple(number.shape)}"
                    )
                values[name] = float(number)
        return values

    def reset(self) -> None:
        """Starts the means and the metrics anew."""
        self._waiting, self._is_new = {}, False
        self._sums.assign([0.0] * _ROOM)
        for metric in self.metrics:
            metric.reset_state()

    def keep(self) -> None:
        """Sets `state`; all workers call it, since replicas have metrics of their own."""
        sums = dict(zip(self._names, self._sums.numpy().tolist(), strict=False))
        metrics = {
            name: {path: _text(tensor) for path, tensor in tensors.items()}
            for name, tensors in self._gather().items()
        }
        self.state.assign(json.dumps({"sums": sums, "metrics": metrics}))

    def take(self) -> None:
        """Goes on from `state`, as far as the task still returns the same numbers and metrics."""
        text = self.state.numpy()
        self.reset()
        self.state.assign("")  # The next checkpoint that is read may be one without it.
        if not text:
            return
        found = json.loads(text)
        sums = found["sums"]
        self._waiting, self._is_new = found["metrics"], True
        self._names = self._names or list(sums)
        if sorted(self._names) == sorted(sums):
            values = [sums[name] for name in self._names]
            self._sums.assign(values + [0.0] * (_ROOM - len(values)))
        self._take_metrics()

    def _meet(self, sums: dict[str, Any], traced: bool) -> None:
        """Looks whether what `take` found is of what the first step returns and has made."""
        self._is_new = False
        if sorted(self._names) != sorted(sums):
            self._names = []
            self._sums.assign([0.0] * _ROOM)
        if traced:  # else the metrics that were made by it have the first step already
            self._take_metrics()
        self._waiting = {}

    def _variables(self) -> dict[str, dict[str, tf.Variable]]:
        """Returns the variables of each metric by path."""
        named = by_unique_name((metric.name, metric) for metric in self.metrics)
        return {name: by_path(metric.variables) for name, metric in named.items()}

    def _take_metrics(self) -> None:
        """Sets the metrics that are those waiting; all replicas have their own."""
        for name, variables in self._variables().items():
            if variables and sorted(variables) == sorted(self._waiting.get(name, ())):
                self._take_metric(variables, self._waiting.pop(name))

    def _take_metric(self, variables: dict[str, tf.Variable], texts: dict[str, str]) -> None:
        replicas = self._strategy.num_replicas_in_sync
        try:
            values = {path: _tensor(texts[path], v.dtype) for path, v in variables.items()}
        except tf.errors.InvalidArgumentError:  # of another dtype
            return
        if any(values[path].shape != [replicas, *v.shape] for path, v in variables.items()):
            return

        def assign() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for path, variable in variables.items():
                variable.assign(values[path][replica])

        self._strategy.run(assign)

    def _gathered(self) -> dict[str, dict[str, tf.Tensor]]:
        """Returns the variables of the metrics, those of the replicas along a new first axis."""
        variables = self._variables()

        def read() -> Any:
            return tf.nest.map_structure(lambda v: tf.convert_to_tensor(v)[tf.newaxis], variables)

        values = self._strategy.run(read)
        return {
            name: {path: self._strategy.gather(v, axis=0) for path, v in of_metric.items()}
            for name, of_metric in values.items()
        }


def _text(tensor: tf.Tensor) -> str:
    return base64.b64encode(tf.io.serialize_tensor(tensor).numpy()).decode()


def _tensor(text: str, dtype: tf.DType) -> tf.Tensor:
    return tf.io.parse_tensor(base64.b64decode(text), dtype)
