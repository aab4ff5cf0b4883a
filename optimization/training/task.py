"""`Task`: the model, the data, the loss and the metrics of an experiment."""

import abc
import typing
from collections.abc import Sequence
from typing import Any

from optimization.configs.experiment_config import RuntimeConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.printing import call
from optimization.configs.task_config import DataConfig, TaskConfig

if typing.TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Task(abc.ABC):
    """What one replica does; the trainer does the rest.

    A subclass says what the model, the batches and the loss are:

        @register_task(DigitsConfig)
        class DigitsTask(Task):
            def build_model(self): ...
            def build_inputs(self, params, input_context=None): ...
            def build_losses(self, labels, model_outputs, aux_losses=None): ...

    The methods are Model Garden's, with two differences. `train_step` returns the gradients and
    leaves it to the trainer to add them up over the replicas and to apply them once, so that every
    replica, and every clip, sees the same gradient. `__init__` takes no dtype or strategy: both are
    in force when the trainer calls.

    >>> task = TinyTask(get_experiment("tiny").task)  # that of `tests/training/tiny.py`
    >>> task.build_model().count_params()
    4

    Args:
        config: The task's part of the experiment.
        logging_dir: The run's `model_dir`; None for a task that is not trained by a trainer.
    """

    def __init__(self, config: TaskConfig, logging_dir: str | None = None):
        self.config = config
        self.logging_dir = logging_dir

    def __repr__(self) -> str:
        return call(type(self).__name__, self.config)

    @classmethod
    def create_optimizer(
        cls, optimizer_config: OptimizationConfig, runtime_config: RuntimeConfig | None = None
    ) -> "keras.optimizers.Optimizer":
        """Creates the optimizer that the trainer uses; a subclass may make another.

        With float16, whose loss is scaled, the optimizer skips updates that are not finite, unless
        the config says otherwise.

        Args:
            optimizer_config: What to build, with steps and batch sizes as numbers.
            runtime_config: Where it runs, for loss scaling; None for none.

        Returns:
            A Keras optimizer, not built.
        """
        from optimization.optimizer_factory import OptimizerFactory
        from optimization.training.loss_scale import with_loss_scale

        if runtime_config is not None and runtime_config.mixed_precision_dtype == "float16":
            optimizer_config = optimizer_config.replace()
            section = optimizer_config.optimizer.get()
            section.on_nonfinite = section.on_nonfinite or "skip"
        factory = OptimizerFactory(optimizer_config)
        optimizer = factory.build_optimizer(factory.build_learning_rate())
        return with_loss_scale(optimizer, runtime_config)

    @abc.abstractmethod
    def build_model(self) -> "keras.Model":
        """Returns a new model, built: with all of its variables."""

    @abc.abstractmethod
    def build_inputs(
        self, params: DataConfig, input_context: "tf.distribute.InputContext | None" = None
    ) -> "tf.data.Dataset":
        """Returns the batches that `params` describes.

        For training the dataset is endless, and batch t is a function of `params.seed` and t alone,
        so that a run can resume; `training.array_batches` makes such a dataset from arrays.

        Args:
            params: `config.train_data` or `config.validation_data`, its seed set.
            input_context: With several replicas, the worker that asks. The elements are batches of
                one replica, those of the worker's replicas one after another.

        Returns:
            A dataset of `(features, labels)`. The examples of a batch are along the first axis.
        """

    @abc.abstractmethod
    def build_losses(
        self, labels: Any, model_outputs: Any, aux_losses: "Sequence[tf.Tensor] | None" = None
    ) -> "tf.Tensor":
        """Returns the loss, a scalar: the mean over the examples at hand.

        Args:
            labels: As in the dataset.
            model_outputs: What the model returned.
            aux_losses: The model's own losses, for example regularization, to be added.
        """

    def build_metrics(self, training: bool) -> list["keras.metrics.Metric"]:
        """Returns the metrics to be reported; the loss is reported anyway."""
        del training
        return []

    def process_metrics(
        self, metrics: list["keras.metrics.Metric"], labels: Any, model_outputs: Any
    ) -> None:
        """Updates what `build_metrics` returned by one batch."""
        for metric in metrics:
            metric.update_state(labels, model_outputs)

    def train_step(
        self,
        inputs: tuple,
        model: "keras.Model",
        optimizer: "keras.optimizers.Optimizer",
        metrics: list["keras.metrics.Metric"],
    ) -> tuple[list, dict[str, "tf.Tensor"]]:
        """Computes one replica's share of the gradient.

        Args:
            inputs: `(features, labels)`, one replica's part of the batch.
            model: The model.
            optimizer: Scales the loss, where loss scaling is on.
            metrics: What `build_metrics(training=True)` returned, to be updated.

        Returns:
            The gradients of `model.trainable_variables`, in their order, and named scalars to be
            reported as means over examples, "loss" among them. The gradients are divided by the
            number of replicas, so that their sum over the replicas is the gradient of the mean
            over the global batch. Model Garden's method also applies them; here the trainer does.
        """
        import tensorflow as tf

        features, labels = inputs
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            outputs = model(features, training=True)
            loss = self.build_losses(labels, outputs, model.losses)
            scaled_loss = optimizer.scale_loss(loss / replicas)
        gradients = tape.gradient(scaled_loss, model.trainable_variables)
        self.process_metrics(metrics, labels, outputs)
        return gradients, {"loss": loss}

    def validation_step(
        self, inputs: tuple, model: "keras.Model", metrics: list["keras.metrics.Metric"]
    ) -> dict[str, "tf.Tensor"]:
        """Evaluates one batch.

        Args:
            inputs: `(features, labels)`, one replica's part of the batch; it may be empty.
            model: The model, with averaged weights where the optimizer averages.
            metrics: What `build_metrics(training=False)` returned, to be updated.

        Returns:
            Named scalars, "loss" among them, which are averaged over the examples.
        """
        features, labels = inputs
        outputs = model(features, training=False)
        self.process_metrics(metrics, labels, outputs)
        return {"loss": self.build_losses(labels, outputs, model.losses)}

    def initialize(self, model: "keras.Model") -> None:
        """Sets the weights with which a run without checkpoint starts.

        Raises:
            CheckpointError: If `config.init_checkpoint` is not there, or lacks a variable.
        """
        if self.config.init_checkpoint:
            from optimization.training.checkpoints import load_model

            load_model(model, self.config.init_checkpoint)
