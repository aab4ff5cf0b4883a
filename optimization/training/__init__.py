"""Training: tasks, experiments by name, the trainer, and `main()` for binaries.

Importing this package imports neither TensorFlow nor Keras; what needs them imports them when it is
called.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from optimization.training.binary import main
    from optimization.training.data import array_batches
    from optimization.training.errors import (
        CheckpointError,
        NonFiniteGradientsError,
        NonFiniteLossError,
        TrainingError,
    )
    from optimization.training.registries import (
        experiment_names,
        get_experiment,
        get_task_class,
        register_experiment,
        register_task,
    )
    from optimization.training.run import run_experiment
    from optimization.training.runtime import with_loss_scale
    from optimization.training.task import Task
    from optimization.training.trainer import Trainer

_MODULES = {
    "binary": ("main",),
    "data": ("array_batches",),
    "errors": (
        "CheckpointError",
        "NonFiniteGradientsError",
        "NonFiniteLossError",
        "TrainingError",
    ),
    "registries": (
        "experiment_names",
        "get_experiment",
        "get_task_class",
        "register_experiment",
        "register_task",
    ),
    "run": ("run_experiment",),
    "runtime": ("with_loss_scale",),
    "task": ("Task",),
    "trainer": ("Trainer",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "CheckpointError",
    "NonFiniteGradientsError",
    "NonFiniteLossError",
    "Task",
    "Trainer",
    "TrainingError",
    "array_batches",
    "experiment_names",
    "get_experiment",
    "get_task_class",
    "main",
    "register_experiment",
    "register_task",
    "run_experiment",
    "with_loss_scale",
]


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'optimization.training' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"optimization.training.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
