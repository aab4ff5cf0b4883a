"""The experiment whose checkpoints `golden/saved` has."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from optimization import ConfigWarning, DataConfig, ExperimentConfig, TaskConfig
from optimization.training import Task, Trainer, array_batches, register_task
from tests.keras.saved import build_model
from tests.saved_goldens import STEPS


@dataclasses.dataclass
class SavedConfig(TaskConfig):
    """The network of `build_model`, on random data."""

    dtype: str | None = None


@register_task(SavedConfig)
class SavedTask(Task):
    def build_model(self):
        return build_model(self.config.dtype)

    def build_inputs(self, params, input_context=None):
        random = np.random.default_rng(5)
        features = random.normal(size=(24, 3, 3, 2)).astype("float32")
        labels = features.mean((1, 2)) * 2 - 0.5
        return array_batches((features, labels), params, input_context)

    def build_losses(self, labels, model_outputs, aux_losses=None):
        return keras.ops.mean(keras.ops.square(labels - model_outputs))


def experiment(case: dict[str, Any], steps: int) -> ExperimentConfig:
    """Returns the experiment of a case that ends after some steps."""
    with warnings.catch_warnings():
        # However long is trained, the schedules are those of all steps.
        warnings.simplefilter("ignore", ConfigWarning)
        return ExperimentConfig(
            task=SavedConfig(
                train_data=DataConfig(global_batch_size=8, is_training=True),
                validation_data=DataConfig(global_batch_size=8),
                **case.get("task", {}),
            ),
            trainer={
                "train_steps": steps,
                "validation_interval": 1,
                "checkpoint_interval": STEPS,
                "optimizer_config": case["config"],
            },
            runtime={"distribution_strategy": "one_device", **case.get("runtime", {})},
        )


def trainer_of(case: dict[str, Any], directory: Path, steps: int = 2 * STEPS) -> Trainer:
    """Returns the trainer of a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        return Trainer(experiment(case, steps), directory, console=Console(quiet=True))
