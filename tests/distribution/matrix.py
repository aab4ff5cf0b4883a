"""Every registered optimizer, clip, accumulation and average through the trainer's loop.

Run in a process of its own for each number of devices, with kinds of device and files,
`python -m tests.distribution.matrix one one.npz fit fit.npz`:

    one       one device; each update of one batch, so what the others are compared with
    mirrored  two logical devices under MirroredStrategy
    workers   one of two processes under MultiWorkerMirroredStrategy, as TF_CONFIG says
    fit       one device, `model.fit` in place of the trainer's loop

All combinations run in turn, which saves the start of a process for each. They are not all that
there could be, which would take long; optimizers of one class, which differ by name, are one. Every
optimizer has plain updates (`jit_compile: false`) on mirrored devices or in two processes, and
fused ones (`auto`), with all the rest, on the other of these; the plain ones have clips,
accumulations and averages by turns. `fit` takes one optimizer of each kind, with fused updates or
within a step that XLA compiles as a whole.

Writes the weights, and the averages where there are any, to an npz file: "sgd, clipnorm, 4,
average, plain: matrix/head/kernel"; and how many kinds of variable had fused updates: "kinds: sgd,
clipnorm, 4, average, plain".
"""

import gc
import itertools
import os
import sys
import types
from typing import NamedTuple

import numpy as np

from optimization import (
    DataConfig,
    ExperimentConfig,
    OptimizationConfig,
    RuntimeConfig,
    TaskConfig,
)
from optimization.training import Task, array_batches
from tests.rules import contracts

UPDATES, BATCH, FEATURES = 3, 16, 4
STRATEGIES = {
    "one": "one_device",
    "fit": "one_device",
    "mirrored": "mirrored",
    "workers": "multi_worker_mirrored",
}
# Small enough to bite in every update.
CLIPS = {
    "none": {},
    "clipnorm": {"clipnorm": 0.1},
    "clipvalue": {"clipvalue": 0.05},
    "global_clipnorm": {"global_clipnorm": 0.1},
}
ACCUMULATIONS = (1, 4)
# (clip, accumulation, averaged) of the combination with fused updates.
FUSED = ("global_clipnorm", 4, True)
# What a type needs beside its defaults.
SETTINGS = {
    "muon": {"exclude_layers": ["head"]},
    "prodigy": {"d0": 0.1},
    "soap": {"epsilon": 0.1},  # else it divides by roots of what is rounding
}
# Their steps are far smaller than the rate.
RATES = {"adadelta": 10.0, "lars": 2.0}


class Combination(NamedTuple):
    name: str
    clip: str
    accumulation: int
    averaged: bool
    fused: bool = False

    @property
    def label(self):
        average = "average" if self.averaged else "no average"
        updates = "fused" if self.fused else "plain"
        return f"{self.name}, {self.clip}, {self.accumulation}, {average}, {updates}"


def optimization_config(combination):
    name = combination.name
    options = {
        "global_clipnorm": None,  # without the clip that some types have by default
        "gradient_accumulation_steps": combination.accumulation,
        "jit_compile": "auto" if combination.fused else False,
        **CLIPS[combination.clip],
    }
    rate = RATES.get(name, 0.1)
    # Rates that change from update to update, so that it matters what counts as one.
    decay = {
        "initial_learning_rate": rate,
        "end_learning_rate": rate / 5,
        "decay_steps": UPDATES,
    }
    ema = {"average_decay": 0.5, "dynamic_decay": False}
    return OptimizationConfig(
        optimizer={"type": name, name: {**SETTINGS.get(name, {}), **options}},
        learning_rate={"type": "polynomial", "polynomial": decay},
        ema=ema if combination.averaged and not averages_by_itself(name) else None,
    )


def averages_by_itself(name):
    """Whether a type has an average whatever is asked for, in the place of the weights."""
    return contracts.section_of(name, {}).schedule_free


def arrays():
    random = np.random.RandomState(0)
    features = random.randn(UPDATES * BATCH, FEATURES).astype("float32")
    # Targets far from what the model says: no gradient comes near 0, where float32 rounding would
    # decide the sign.
    return features, np.tanh(features @ random.randn(FEATURES, FEATURES)).astype("float32") + 3.0


class MatrixTask(Task):
    def build_model(self):
        import keras

        keras.utils.set_random_seed(0)
        layers = [
            keras.Input((FEATURES,)),
            keras.layers.Dense(FEATURES, activation="tanh", name="hidden"),
            # Of the same shape: fused updates take variables of one kind together.
            keras.layers.Dense(FEATURES, use_bias=False, name="head"),
        ]
        return keras.Sequential(layers, name="matrix")

    def build_inputs(self, params, input_context=None):
        return array_batches(arrays(), params, input_context)

    def build_losses(self, labels, model_outputs, aux_losses=None):
        import tensorflow as tf

        return tf.reduce_mean((labels - model_outputs) ** 2)


class Setting:
    """A strategy, a model and endless batches, for one combination after another."""

    def __init__(self, runtime):
        from optimization.training.building import build_strategy

        self.task = MatrixTask(TaskConfig())
        self.strategy = build_strategy(runtime)
        with self.strategy.scope():
            self.model = self.task.build_model()
        self.start = self.model.get_weights()
        self.batches = {k: self._batches(BATCH // k) for k in ACCUMULATIONS}

    def _batches(self, size):
        # Every combination takes all examples once, so the next one starts where it started.
        data = DataConfig(global_batch_size=size, is_training=True)
        return iter(
            self.strategy.distribute_datasets_from_function(
                lambda context: self.task.build_inputs(data, context)
            )
        )

    def optimizer(self, combination):
        self.model.set_weights(self.start)
        with self.strategy.scope():
            optimizer = self.task.create_optimizer(optimization_config(combination))
            optimizer.build(self.model.trainable_variables)
        return optimizer

    def train(self, combination):
        """The trainer's own compiled loop."""
        import tensorflow as tf

        from optimization.training.loop import Steps

        optimizer = self.optimizer(combination)
        trainer = types.SimpleNamespace(
            **{name: getattr(self, name) for name in ("strategy", "task", "model")},
            optimizer=optimizer,
            optimizer_config=optimization_config(combination),
            config=ExperimentConfig(),
            global_step=tf.Variable(0, dtype=tf.int64),
        )
        Steps(trainer, [], []).train(
            self.batches[combination.accumulation], tf.constant(UPDATES, tf.int64)
        )
        if averages_by_itself(combination.name):
            optimizer.swap()  # as `fit` leaves them
        return self.results(combination, optimizer)

    def fit(self, combination):
        """Keras' loop."""
        optimizer = self.optimizer(combination)
        # Within a step that XLA compiles as a whole, as it does unless told otherwise, updates are
        # not fused.
        jit_compile = False if combination.fused else "auto"
        self.model.compile(optimizer, loss="mse", jit_compile=jit_compile)
        size = BATCH // combination.accumulation
        self.model.fit(*arrays(), batch_size=size, shuffle=False, verbose=0)
        return self.results(combination, optimizer)

    def results(self, combination, optimizer):
        from optimization.keras.stages.update import Update

        values = {
            name: variable
            for name, variable in optimizer.variables_by_path().items()
            if name.startswith("average/")
        }
        values |= {variable.path: variable for variable in self.model.trainable_variables}
        label = combination.label
        found = {f"{label}: {name}": np.array(variable) for name, variable in values.items()}
        return {**found, f"kinds: {label}": len(optimizer.stage(Update).updates.fused)}


def combinations(kind):
    """Yields the combinations of a kind of device."""
    for number, name in enumerate(contracts.classes()):
        if kind == "one":
            others = [*(s for kind in STRATEGIES for s in plain(kind, number)), FUSED]
            clips = [
                clip for clip in CLIPS if name == "sgd" or clip in {each[0] for each in others}
            ]
            for clip in clips:
                yield Combination(name, clip, 1, True)
            continue
        if kind == "fit" and name not in contracts.ONE_OF_EACH_KIND:
            continue
        for settings in plain(kind, number):
            yield Combination(name, *settings)
        if kind == "fit" or kind == ("mirrored", "workers")[number % 2]:
            yield Combination(name, *FUSED, fused=True)


def plain(kind, number):
    """Returns (clip, accumulation, averaged) of an optimizer's combinations with plain updates."""
    if kind == "one" or kind == ("mirrored", "workers")[number % 2]:
        return []
    if kind == "fit":
        return [("global_clipnorm", ACCUMULATIONS[number % 2], True)]
    every = list(itertools.product(CLIPS, ACCUMULATIONS, (False, True)))
    # Steps of 5 meet each of the 16 once, and soon each clip, accumulation and average.
    return [every[(5 * (number // 2) + 8 * (number % 2)) % len(every)]]


def main(*arguments):
    import tensorflow as tf

    runs = dict(zip(arguments[::2], arguments[1::2], strict=True))
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * (2 if "mirrored" in runs else 1)
    tf.config.set_logical_device_configuration(cpu, devices)
    # Hundreds of loops run for three updates each: to optimize their graphs takes longer than that.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # Compiling makes much garbage; collecting it only now and then saves a sixth of the time.
    gc.disable()
    for kind, path in runs.items():
        run(kind, path)
    # To free each of the compiled loops takes longer than to run them.
    os._exit(0)


def run(kind, path):
    """Trains all combinations of a kind of device, and writes what comes of them."""
    setting = Setting(RuntimeConfig(distribution_strategy=STRATEGIES[kind]))
    train = setting.fit if kind == "fit" else setting.train
    found = {"replicas": setting.strategy.num_replicas_in_sync}
    weights = zip(setting.model.trainable_variables, setting.start, strict=True)
    found |= {f"start: {variable.path}": value for variable, value in weights}
    for number, combination in enumerate(combinations(kind)):
        if number % 16 == 0:
            gc.collect()
        found |= train(combination)
    np.savez(path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
