"""The learning rate range test on the model and the data of an experiment."""

import tempfile
from typing import Any

from rich.console import Console

from optimization.configs.experiment_config import ExperimentConfig
from optimization.range_test import RangeTest, find_learning_rate
from optimization.training.data import distributed_batches
from optimization.training.errors import TrainingError
from optimization.training.trainer import Trainer


def find_rate(config: ExperimentConfig, **arguments: Any) -> RangeTest:
    """Trains the experiment's model from its start with a rate that grows; keeps nothing.

    The optimizer is that of the experiment, its clips and groups included, but for the learning
    rate, its warmup and its scaling with the batch: the rates that are returned are those to be
    written where `lr_scaling` multiplies them. Groups with a learning rate of their own keep it.

    Args:
        config: The experiment, complete.
        **arguments: Those of `find_learning_rate`.

    Raises:
        TrainingError: If the optimizer has a learning rate of its own.
    """
    sized = config.sized_optimizer_config()
    own = sized.optimizer.get().own_learning_rate()
    if own is not None:
        raise TrainingError(
            f"{sized.optimizer.type} has a learning rate of its own, {own.name}: there is none to "
            "be found"
        )
    factor = 1.0 if sized.lr_scaling is None else sized.lr_scaling.factor()
    config = config.replace()
    config.override({"trainer": {"optimizer_config": _with_a_constant_rate(config)}})
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(config, directory, console=Console(quiet=True))
        batches = iter(distributed_batches(trainer, config.task.train_data))

        def step(rate: float) -> float:
            trainer.optimizer.learning_rate = rate * factor
            return trainer.take_steps(batches)

        return find_learning_rate(step, **arguments)


def _with_a_constant_rate(config: ExperimentConfig) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 1.0}},
        "warmup": {"type": None},
        "lr_scaling": None,
    }
    kind = config.trainer.optimizer_config.optimizer.type
    if not config.runtime.scales_dynamically:  # A loss that is not finite is what is looked for.
        changes["optimizer"] = {kind: {"on_nonfinite": None, "max_consecutive_nonfinite": None}}
    return changes
