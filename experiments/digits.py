"""Handwritten digits: scikit-learn's `load_digits`, 1797 images of 8 x 8, and a small convnet."""

import dataclasses
from typing import Annotated

from annotated_types import Interval

from experiments.splits import stratified_split
from optimization import DataConfig, ExperimentConfig, TaskConfig, TrainerConfig
from optimization.configs.base import Config
from optimization.configs.types import NonNegativeFloat, PositiveInt, Share
from optimization.training import Task, array_batches, register_experiment, register_task


@dataclasses.dataclass
class DigitsModelConfig(Config):
    """A convnet of two convolutions and one hidden layer.

    Attributes:
        filters: Channels of the first convolution; the second has twice as many.
        hidden_units: Units of the dense layer.
        dropout: The rate before the last layer.
        l2: The weight of half the squared kernels in the loss.
    """

    filters: PositiveInt = 32
    hidden_units: PositiveInt = 64
    dropout: Share = 0.5
    l2: NonNegativeFloat = 0.0


@dataclasses.dataclass
class DigitsConfig(TaskConfig):
    """The digits task.

    Attributes:
        model: The model.
        test_fraction: How much of the data is held out; stratified, and the same for every seed.
    """

    model: DigitsModelConfig = dataclasses.field(default_factory=DigitsModelConfig)
    test_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.2


@register_task(DigitsConfig)
class DigitsTask(Task):
    """Classifies images of digits."""

    def build_model(self):
        """Returns the convnet."""
        import keras

        config = self.config.model
        regularizer = keras.regularizers.L2(config.l2 / 2) if config.l2 else None
        arguments = {"activation": "relu", "kernel_regularizer": regularizer}
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(config.filters, 3, padding="same", **arguments),
                keras.layers.Conv2D(2 * config.filters, 3, padding="same", **arguments),
                keras.layers.MaxPooling2D(),
                keras.layers.Flatten(),
                keras.layers.Dense(config.hidden_units, **arguments),
                keras.layers.Dropout(config.dropout),
                # Logits in float32 whatever the precision, as the loss needs.
                keras.layers.Dense(10, dtype="float32"),
            ],
            name="digits",
        )

    def build_inputs(self, params, input_context=None):
        """Returns batches of images, (B, 8, 8, 1) float32 in [0, 1], and labels, (B,) int32."""
        images, labels = load_split(self.config.test_fraction, params.is_training)
        return array_batches((images, labels), params, input_context)

    def build_losses(self, labels, model_outputs, aux_losses=None):
        """Returns the mean cross entropy, plus the regularization."""
        import tensorflow as tf

        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model_outputs)
        return tf.add_n([tf.reduce_mean(entropy), *(aux_losses or [])])

    def build_metrics(self, training):
        """Returns the accuracy."""
        import keras

        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]


def load_split(test_fraction: float, is_training: bool):
    """Returns images and labels, of the training or of the test part."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16.0).astype("float32")[..., None]
    labels = digits.target.astype("int32")
    training, held_out = stratified_split(labels, test_fraction)
    part = training if is_training else held_out
    return images[part], labels[part]


@register_experiment("digits")
def digits() -> ExperimentConfig:
    """Momentum SGD, cosine decay, linear warmup: above 98 % in some ten seconds."""
    return ExperimentConfig(
        task=DigitsConfig(
            train_data=DataConfig(
                global_batch_size=64, is_training=True, shuffle=True, drop_remainder=True
            ),
            validation_data=DataConfig(global_batch_size=360),
        ),
        trainer=TrainerConfig(
            train_steps=1000,
            steps_per_loop=100,
            summary_interval=50,
            validation_interval=250,
            checkpoint_interval=250,
            best_checkpoint_export_subdir="best",
            best_checkpoint_eval_metric="accuracy",
            optimizer_config={
                "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9, "nesterov": True}},
                "learning_rate": {
                    "type": "cosine",
                    "cosine": {"initial_learning_rate": 0.1, "decay_steps": 1000},
                },
                "warmup": {"type": "linear", "linear": {"warmup_steps": 100}},
            },
        ),
    )
