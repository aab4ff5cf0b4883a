"""Trainings by the trainer of this package, that of each optimizer type with all that it can."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from optimization import ConfigWarning, DataConfig, ExperimentConfig, TaskConfig
from optimization.training import Task, array_batches, register_task, run_experiment
from tools.kills.processes import Steps
from tools.kills.sections import sections

UPDATES, ACCUMULATION = 24, 2
# A life takes at most so many batches before it is killed: two checkpoints' worth.
MOST_STEPS = 2 * 3 * ACCUMULATION
_INTERVALS = {"summary_interval": 5, "validation_interval": 2, "checkpoint_interval": 3}
_RATE = {"initial_learning_rate": 0.05, "patience": 0, "factor": 0.5, "threshold": 0.2}


@dataclasses.dataclass
class KilledConfig(TaskConfig):
    """A small network with batch normalization and dropout.

    Attributes:
        layers: The names of its hidden layers, which are side by side.
    """

    layers: tuple[str, ...] = ("hidden",)


@register_task(KilledConfig)
class KilledTask(Task):
    """Regression, of which each batch is counted."""

    steps: Steps | None = None

    def build_model(self) -> keras.Model:
        features = keras.Input((3,))
        hidden = [keras.layers.Dense(8, name=name)(features) for name in self.config.layers]
        rest = keras.Sequential(
            [
                keras.layers.BatchNormalization(momentum=0.8, name="norm"),
                keras.layers.ReLU(),
                keras.layers.Dropout(0.1, name="dropout"),
                keras.layers.Dense(1, dtype="float32", name="head"),
            ],
            name="rest",
        )
        joined = hidden[0] if len(hidden) == 1 else keras.layers.Add(name="sum")(hidden)
        return keras.Model(features, rest(joined), name="killed")

    def build_inputs(self, params: DataConfig, input_context: Any = None) -> tf.data.Dataset:
        chance = np.random.default_rng(int(params.is_training))
        features = chance.normal(size=(40, 3)).astype("float32")
        labels = features @ np.array([[1.0], [-2.0], [0.5]], "float32") + 0.3
        return array_batches((features, labels), params, input_context)

    def build_losses(self, labels: Any, model_outputs: Any, aux_losses: Any = None) -> tf.Tensor:
        return tf.reduce_mean((labels - model_outputs) ** 2)

    def build_metrics(self, training: bool) -> list[keras.metrics.Metric]:
        return [keras.metrics.MeanAbsoluteError(name="mae")]

    def train_step(self, inputs: Any, model: Any, optimizer: Any, metrics: Any) -> Any:
        if self.steps is not None:
            tf.py_function(self.steps.count, [], [])
        return super().train_step(inputs, model, optimizer, metrics)


def experiment(kind: str, eager: bool = False) -> ExperimentConfig:
    """Returns the training of a type, or of those `TOGETHER`, with all that can be set with it.

    To compile the steps of all types takes longer than to take so few of them; `eager` does not.
    """
    chosen = sections(
        kind,
        first={"gradient_accumulation_steps": ACCUMULATION},
        learning_rate={"type": "hf_reduce_lr_on_plateau", "hf_reduce_lr_on_plateau": _RATE},
    )
    data = {"train_data": DataConfig(global_batch_size=8, is_training=True, shuffle=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        return ExperimentConfig(
            task=KilledConfig(
                **data, validation_data=DataConfig(global_batch_size=16), layers=chosen.layers
            ),
            trainer={
                **_INTERVALS,
                "train_steps": UPDATES,
                "best_checkpoint_export_subdir": "best",
                "best_checkpoint_eval_metric": "mae",
                "best_checkpoint_metric_comp": "lower",
                "optimizer_config": chosen.optimizer,
            },
            runtime={
                "distribution_strategy": "one_device",
                "run_eagerly": eager,
                "mixed_precision_dtype": "float16",
                "loss_scale": "dynamic",
            },
        )


def train(kind: str, eager: bool, directory: Path, steps: Steps) -> None:
    """Trains to the end, from where the directory has it."""
    KilledTask.steps = steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, quiet = experiment(kind, eager), Console(quiet=True)
        run_experiment(config, "train_and_eval", directory, console=quiet)
