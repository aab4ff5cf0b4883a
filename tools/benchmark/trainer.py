"""What the trainer costs: the digits experiment beside a bare loop over the same batches.

    python -m tools.benchmark.trainer [--rounds 5] [--output DIR]

Prints a table, and writes trainer.json and trainer.md. Both are traced before they are timed, and
take turns.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import rich.console
import tensorflow as tf

from experiments.digits import digits
from optimization import ExperimentConfig
from optimization.training import Trainer
from optimization.training.data import distributed_batches
from tools.benchmark import page
from tools.benchmark.report import table

BARE = "bare loop"
SHIPPED = "trainer, as shipped"
_SETTINGS: dict[str, dict[str, int]] = {
    SHIPPED: {},
    "trainer, no summaries or checkpoints between": {
        "summary_interval": 1 << 30,
        "checkpoint_interval": 1 << 30,
    },
    "trainer, steps_per_loop 1": {"steps_per_loop": 1},
}


def experiment(train_steps: int, **settings: int) -> ExperimentConfig:
    """Returns the digits experiment with these settings of its trainer."""
    config = digits()
    optimizer = {
        "learning_rate": {"cosine": {"decay_steps": train_steps}},
        "warmup": {"linear": {"warmup_steps": train_steps // 10}},
    }
    config.override({"trainer": {"train_steps": train_steps, "optimizer_config": optimizer}})
    config.override({"trainer": settings})
    return config


def make_trainer(config: ExperimentConfig, folder: str) -> Trainer:
    """Returns a trainer that writes its progress into a string."""
    return Trainer(config, folder, console=rich.console.Console(file=io.StringIO()))


def train(config: ExperimentConfig) -> float:
    """Trains with the trainer; returns the seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, folder)
        # A loop of no steps is traced and changes nothing.
        batches = iter(distributed_batches(trainer, config.task.train_data))
        trainer._steps.train(batches, tf.constant(0, tf.int64))
        start = time.perf_counter()
        trainer.train()
        return (time.perf_counter() - start) / config.trainer.train_steps


def train_bare(config: ExperimentConfig) -> float:
    """Trains the same model on the same batches in one call; returns the seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, folder)
    loop = bare_loop(trainer)
    steps = config.trainer.train_steps
    batches = iter(distributed_batches(trainer, config.task.train_data))
    loop(batches, tf.constant(0, tf.int64))
    start = time.perf_counter()
    loop(iter(distributed_batches(trainer, config.task.train_data)), tf.constant(steps, tf.int64))
    return (time.perf_counter() - start) / steps


def bare_loop(trainer: Trainer) -> Callable[[Any, tf.Tensor], None]:
    """Returns the shortest loop that trains the trainer's model with its optimizer."""
    model, optimizer, losses = trainer.model, trainer.optimizer, trainer.task.build_losses
    weights = model.trainable_variables
    apply = tf.autograph.experimental.do_not_convert(optimizer.apply)

    @tf.function
    def loop(batches: Any, steps: tf.Tensor) -> None:
        for _ in tf.range(steps):
            images, labels = next(batches)
            with tf.GradientTape() as tape:
                loss = losses(labels, model(images, training=True))
            apply(tape.gradient(loss, weights), weights)

    return loop


def measure(rounds: int, train_steps: int) -> dict[str, list[float]]:
    """Returns the milliseconds of a step, round by round, of each way to train."""
    ways: dict[str, Callable[[], float]] = {
        BARE: lambda: train_bare(experiment(train_steps)),
        **{
            name: lambda settings=settings: train(experiment(train_steps, **settings))
            for name, settings in _SETTINGS.items()
        },
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        names = list(ways)
        # Each begins once in a while: the first has caches and clocks against it.
        start = turn % len(names)
        for name in [*names[start:], *names[:start]]:
            times[name].append(1e3 * ways[name]())
    return times


def report(times: dict[str, list[float]]) -> str:
    """Returns the table."""
    bare = times[BARE]
    rows = []
    for name, of_way in times.items():
        ratio = statistics.median(a / b for a, b in zip(of_way, bare, strict=True))
        least = min(of_way) / min(bare)
        median = statistics.median(of_way)
        rows.append((name, f"{median:.3f}", f"{min(of_way):.3f}", f"{ratio:.2f}", f"{least:.2f}"))
    head = ("digits", "ms a step, median", "least", "over bare, median", "of the least")
    return table(head, rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and writes the files."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark.trainer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train_steps", type=int, default=1000)
    page.add_options(parser, "trainer")
    options = parser.parse_args(arguments)
    times = measure(options.rounds, options.train_steps)
    record = {"facts": {"train_steps": options.train_steps}, "milliseconds": times}
    page.write(options, "trainer", "trainer", report(times), record)


if __name__ == "__main__":
    main()
