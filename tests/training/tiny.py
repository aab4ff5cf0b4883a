"""A task that trains in milliseconds, and what the tests of training share.

`python -m tests.training.tiny --experiment=tiny ...` is a training binary.
"""

import dataclasses
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console

from optimization import ConfigWarning, DataConfig, ExperimentConfig, TaskConfig, TrainerConfig
from optimization.configs.types import Share
from optimization.training import Task, array_batches, main, register_experiment, register_task
from optimization.training.binary import resolve_flags

ROOT = Path(__file__).parents[2]
EXAMPLES, FEATURES, BATCH = 40, 3, 8


@dataclasses.dataclass
class TinyConfig(TaskConfig):
    """Linear regression, or with `hidden` units a small network with batch normalization."""

    hidden: int = 0
    dropout: Share = 0.0


def arrays(is_training=True):
    random = np.random.RandomState(0 if is_training else 1)
    features = random.randn(EXAMPLES, FEATURES).astype("float32")
    labels = features @ np.array([[1.0], [-2.0], [0.5]], "float32") + 0.3
    return features, labels


@register_task(TinyConfig)
class TinyTask(Task):
    def build_model(self):
        import keras

        layers = [keras.Input((FEATURES,))]
        if self.config.hidden:
            layers += [
                keras.layers.Dense(self.config.hidden, name="hidden"),
                keras.layers.BatchNormalization(momentum=0.8, name="norm"),
                keras.layers.ReLU(),
                keras.layers.Dropout(self.config.dropout, name="dropout"),
            ]
        layers.append(keras.layers.Dense(1, dtype="float32", name="head"))
        return keras.Sequential(layers, name="tiny")

    def build_inputs(self, params, input_context=None):
        return array_batches(arrays(params.is_training), params, input_context)

    def build_losses(self, labels, model_outputs, aux_losses=None):
        import tensorflow as tf

        return tf.add_n([tf.reduce_mean((labels - model_outputs) ** 2), *(aux_losses or [])])

    def build_metrics(self, training):
        import keras

        return [keras.metrics.MeanAbsoluteError(name="mae")]


@register_experiment("tiny")
def tiny_experiment():
    """Linear regression in twelve steps."""
    return ExperimentConfig(
        task=TinyConfig(
            train_data=DataConfig(global_batch_size=BATCH, is_training=True, shuffle=True),
            validation_data=DataConfig(global_batch_size=16),
        ),
        trainer=TrainerConfig(
            train_steps=12,
            summary_interval=4,
            validation_interval=6,
            checkpoint_interval=6,
            optimizer_config={
                "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
                "learning_rate": {
                    "type": "cosine",
                    "cosine": {"initial_learning_rate": 0.05, "decay_steps": 12},
                },
                "warmup": {"type": "linear", "linear": {"warmup_steps": 5}},
            },
        ),
    )


def tiny(*overrides):
    """Returns the config of the tiny experiment with overrides as on the command line."""
    with warnings.catch_warnings():
        # However long a test trains, the schedule is that of 12 steps.
        warnings.simplefilter("ignore", ConfigWarning)
        return resolve_flags("tiny", (), overrides)


def quiet():
    """Returns a console that prints nothing."""
    return Console(quiet=True)


def trainer(model_dir, *overrides, **kwargs):
    from optimization.training import Trainer  # not above: it brings TensorFlow

    return Trainer(tiny(*overrides), model_dir, console=quiet(), **kwargs)


def weights(a_trainer):
    """Returns every variable of the model and the optimizer, by path."""
    return {
        **{v.path: v.numpy() for v in a_trainer.model.variables},
        **{f"optimizer {v.path}": v.numpy() for v in a_trainer.optimizer.variables},
    }


def stored(path):
    """Returns every variable of a checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(path))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "VARIABLE_VALUE" in name and not name.startswith("save_counter")
    }


def assert_same_bits(actual, expected):
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def read_summaries(directory):
    """Returns {tag: {step: value}} of the event files in `directory`."""
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    found = {}
    for path in sorted(Path(directory).glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = event_pb2.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return found


def start(arguments, env=None):
    """Starts Python in the repository's root, as a user would: without what conftest.py set."""
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=inherited | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes):
    """Waits for all processes; returns the exit status, output and error output of each.

    One that fails ends the others, which may wait for it.
    """

    def wait(process):
        out, err = process.communicate()
        if process.returncode:
            for other in processes:
                other.kill()
        return process.returncode, out, err

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(wait, processes))


def run(arguments, env=None):
    """Runs Python in the repository's root; returns exit status, output and error output."""
    return finish([start(arguments, env)])[0]


def run_binary(*arguments):
    """Runs the training binary of this module."""
    return run(["-m", "tests.training.tiny", *arguments])


if __name__ == "__main__":
    main()
