"""The compiled loops: many training steps, or one evaluation, in a single call."""

import typing
from collections.abc import Callable
from typing import Any

if typing.TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from optimization.training.task import Task


class Means:
    """Running means of named scalars, weighted by examples, kept in TensorFlow variables."""

    def __init__(self) -> None:
        self._totals: dict[str, tf.Variable] = {}
        self._count: tf.Variable | None = None

    def add(self, sums: dict[str, Any], count: Any) -> None:
        """Adds sums over `count` examples; called inside or outside of a `tf.function`."""
        import tensorflow as tf

        if self._count is None:
            # Which names there are is known only when the first step is traced.
            with tf.init_scope():
                self._count = tf.Variable(0.0, trainable=False)
                self._totals = {name: tf.Variable(0.0, trainable=False) for name in sums}
        self._count.assign_add(count)
        for name, total in self._totals.items():
            total.assign_add(sums[name])

    def result(self) -> dict[str, float]:
        """Returns the means so far, NaN for those of no examples."""
        if self._count is None:
            return {}
        count = float(self._count)
        return {
            name: float(total) / count if count else float("nan")
            for name, total in self._totals.items()
        }

    def reset(self) -> None:
        """Starts the means anew."""
        if self._count is not None:
            for variable in (self._count, *self._totals.values()):
                variable.assign(0.0)


class Steps:
    """One training step and one validation step on all replicas, and loops of them.

    Gradients are summed over the replicas inside `strategy.run`; `optimizer.apply` runs once,
    outside of it and outside of the strategy's scope.

    Args:
        strategy: The distribution strategy.
        task: What a replica does.
        model: The model.
        optimizer: The optimizer, built.
        train_metrics: Updated by the training steps.
        validation_metrics: Updated by the validation steps.
        global_step: Counts training steps.
        eager: Whether to do without `tf.function`.
        xla: Whether XLA compiles the replica's training step.
    """

    def __init__(
        self,
        strategy: "tf.distribute.Strategy",
        task: "Task",
        model: "keras.Model",
        optimizer: "keras.optimizers.Optimizer",
        train_metrics: list,
        validation_metrics: list,
        global_step: "tf.Variable",
        eager: bool = False,
        xla: bool = False,
    ):
        import tensorflow as tf

        self._strategy = strategy
        self._task = task
        self._model = model
        self._optimizer = optimizer
        self._train_metrics = train_metrics
        self._validation_metrics = validation_metrics
        self._global_step = global_step
        self._aggregate = _aggregation(optimizer)
        self.train_means, self.validation_means = Means(), Means()
        compiled: Callable = (lambda function: function) if eager else tf.function
        self._forward_backward = self._train_replica
        if xla:
            self._forward_backward = tf.function(self._train_replica, jit_compile=True)
        self.train = compiled(self._train)
        self.validate = compiled(self._validate)

    def _train(self, iterator: Any, steps: "tf.Tensor") -> "tf.Tensor":
        """Runs `steps` training steps; returns the global gradient norm of the last one."""
        import tensorflow as tf

        norm = tf.constant(0.0)
        for index in tf.range(steps):
            gradients, scale = self._gradients(next(iterator))
            if index == steps - 1:
                norm = _global_norm(gradients) / scale
            self._optimizer.apply(gradients, self._model.trainable_variables)
            self._global_step.assign_add(1)
        return norm

    def _gradients(self, inputs: Any) -> tuple[list, "tf.Tensor"]:
        """Returns the gradients summed over all replicas, and the factor they are scaled by."""
        import tensorflow as tf

        scale = tf.cast(self._optimizer.scale_loss(tf.constant(1.0)), tf.float32)
        gradients, sums, count = self._strategy.run(self._replica_gradients, args=(inputs,))
        self.train_means.add(*self._over_replicas(sums, count))
        # After the aggregation every replica holds the same; any of them will do.
        local = self._strategy.experimental_local_results
        return [None if g is None else local(g)[0] for g in gradients], scale

    def _replica_gradients(self, inputs: Any) -> tuple[list, dict, Any]:
        gradients, logs = self._forward_backward(inputs)
        pairs = zip(gradients, self._model.trainable_variables, strict=True)
        gradients = [gradient for gradient, _ in self._aggregate(list(pairs))]
        return gradients, *_weighted(logs, inputs)

    def _train_replica(self, inputs: Any) -> tuple[list, dict]:
        return self._task.train_step(inputs, self._model, self._optimizer, self._train_metrics)

    def _validate(self, dataset: Any) -> None:
        for inputs in dataset:
            sums, count = self._strategy.run(self._validation_replica, args=(inputs,))
            self.validation_means.add(*self._over_replicas(sums, count))

    def _validation_replica(self, inputs: Any) -> tuple[dict, Any]:
        logs = self._task.validation_step(inputs, self._model, self._validation_metrics)
        return _weighted(logs, inputs)

    def _over_replicas(self, sums: dict, count: Any) -> tuple[dict, Any]:
        if self._strategy.num_replicas_in_sync == 1:
            return sums, count
        total = self._strategy.reduce("SUM", {"count": count, **sums}, axis=None)
        return {name: total[name] for name in sums}, total["count"]


def _aggregation(optimizer: Any) -> Callable[[list], list]:
    """Returns the optimizer's own sum over replicas, or a plain one for other Keras optimizers."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(inner, "aggregate_gradients", _sum_over_replicas)


def _sum_over_replicas(grads_and_vars: list) -> list:
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return grads_and_vars
    present = [gradient for gradient, _ in grads_and_vars if gradient is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [(None if g is None else next(summed), v) for g, v in grads_and_vars]


def _weighted(logs: dict, inputs: Any) -> tuple[dict, "tf.Tensor"]:
    """Turns means over the examples of one replica into sums, and counts the examples."""
    import tensorflow as tf

    if "loss" not in logs:
        raise ValueError(f"a step must return its 'loss', received: {sorted(logs)}")
    count = tf.cast(tf.shape(tf.nest.flatten(inputs)[0])[0], tf.float32)
    # The mean over an empty slice is NaN and must not count.
    sums = {
        name: tf.where(count > 0, tf.cast(value, tf.float32), 0.0) * count
        for name, value in logs.items()
    }
    return sums, count


def _global_norm(gradients: list) -> "tf.Tensor":
    import tensorflow as tf

    dense = [tf.convert_to_tensor(g) for g in gradients if g is not None]
    return tf.linalg.global_norm([tf.cast(gradient, tf.float32) for gradient in dense])
