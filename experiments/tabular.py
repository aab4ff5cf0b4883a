"""A classifier for a table of numbers, through one sparse embedding table.

The data is scikit-learn's breast cancer set (569 tumors, 30 measurements each, malignant or
benign). Each measurement is sorted into bins, quantiles of the training part; each bin of each
measurement has a row in one embedding table, and a small MLP reads the rows of all measurements.
The table's gradient is sparse (`tf.IndexedSlices`): it holds the rows that the batch looked up, a
row as often as examples share it, and Adagrad leaves all other rows as they are.
"""

import dataclasses
import functools
import typing
from typing import Annotated

from annotated_types import Ge, Interval

from experiments.splits import stratified_split
from optimization import DataConfig, ExperimentConfig, TaskConfig, TrainerConfig
from optimization.configs.types import PositiveInt
from optimization.training import Task, array_batches, register_experiment, register_task

if typing.TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass
class TabularConfig(TaskConfig):
    """The classifier.

    Attributes:
        bins: Into how many parts each measurement is sorted.
        embedding_width: Columns of the embedding table, which has a row for each bin of each
            measurement.
        hidden_width: Units of the hidden layer.
        test_fraction: How much of the data is held out; stratified, and the same for every seed.
    """

    bins: Annotated[int, Ge(2)] = 6
    embedding_width: PositiveInt = 4
    hidden_width: PositiveInt = 16
    test_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.25


class Table(typing.NamedTuple):
    """One part of the data: rows of the embedding table, [n, measurements], and labels, [n, 1]."""

    rows: "np.ndarray"
    labels: "np.ndarray"


@functools.cache
def read_tables(bins: int, test_fraction: float) -> tuple[Table, Table]:
    """Returns the training part and the held-out part."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    values, labels = load_breast_cancer(return_X_y=True)
    training, held_out = stratified_split(labels, test_fraction)
    edges = np.quantile(values[training], np.arange(1, bins) / bins, axis=0)
    # The bin of a value is the number of its column's edges that are not above it.
    places = (values[:, None, :] >= edges[None]).sum(axis=1)
    rows = (places + np.arange(values.shape[1]) * bins).astype(np.int32)
    labels = labels.astype(np.float32)[:, None]
    return Table(rows[training], labels[training]), Table(rows[held_out], labels[held_out])


def majority_accuracy(labels: "np.ndarray") -> float:
    """Returns the accuracy of always answering with the more frequent label."""
    share = float(labels.mean())
    return max(share, 1 - share)


@register_task(TabularConfig)
class TabularTask(Task):
    """Malignant or benign, from the binned measurements."""

    def build_model(self):
        """Returns an embedding table and an MLP, from rows of the table to one logit."""
        import keras

        config, measurements = self.config, self._tables()[0].rows.shape[1]
        return keras.Sequential(
            [
                keras.Input((measurements,), dtype="int32"),
                keras.layers.Embedding(measurements * config.bins, config.embedding_width),
                keras.layers.Flatten(),
                keras.layers.Dense(config.hidden_width, activation="relu", name="hidden"),
                # Logits in float32 whatever the precision, as the loss needs.
                keras.layers.Dense(1, dtype="float32", name="logit"),
            ],
            name="tabular",
        )

    def _tables(self):
        return read_tables(self.config.bins, self.config.test_fraction)

    def build_inputs(self, params, input_context=None):
        """Returns batches of the training part, or else of the held-out part."""
        training, held_out = self._tables()
        part = training if params.is_training else held_out
        return array_batches((part.rows, part.labels), params, input_context)

    def build_losses(self, labels, model_outputs, aux_losses=None):
        """Returns the mean cross-entropy."""
        import keras

        losses = keras.losses.binary_crossentropy(labels, model_outputs, from_logits=True)
        return sum(aux_losses or (), keras.ops.mean(losses))

    def build_metrics(self, training):
        """Returns the accuracy and the area under the ROC curve."""
        import keras

        return [
            keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0),
            keras.metrics.AUC(name="auc", from_logits=True),
        ]

    def validation_step(self, inputs, model, metrics):
        """Reports also the accuracy of always giving the more frequent answer."""
        logs = super().validation_step(inputs, model, metrics)
        return {**logs, "majority_accuracy": majority_accuracy(self._tables()[1].labels)}


@register_experiment("tabular")
def tabular() -> ExperimentConfig:
    """Adagrad at a constant rate after a linear warmup: 94 % in a few seconds."""
    return ExperimentConfig(
        task=TabularConfig(
            train_data=DataConfig(
                global_batch_size=32, is_training=True, shuffle=True, drop_remainder=True
            ),
            validation_data=DataConfig(global_batch_size=64),
        ),
        trainer=TrainerConfig(
            train_steps=300,
            steps_per_loop=50,
            summary_interval=25,
            validation_interval=100,
            checkpoint_interval=100,
            best_checkpoint_export_subdir="best",
            best_checkpoint_eval_metric="auc",
            optimizer_config={
                "optimizer": {"type": "adagrad", "adagrad": {"initial_accumulator_value": 0.1}},
                "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
                "warmup": {"type": "linear", "linear": {"warmup_steps": 30}},
            },
        ),
    )
