"""A dry run: what a training would be, shown before anything is trained or written."""

import math
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from optimization.configs.comments import key_lines
from optimization.configs.comparing import in_training
from optimization.configs.errors import DEFAULT, PYTHON, ConfigError
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.leaves import leaves
from optimization.configs.optimization_config import OptimizationConfig
from optimization.plots.drawing import picture_of_all
from optimization.training.registries import get_task_class
from optimization.training.report import describe_optimization, rows

if typing.TYPE_CHECKING:
    import keras

    from optimization.training.task import Task


def show_settings(config: ExperimentConfig) -> None:
    """Prints the settings with where each comes from, and the learning rate; no framework."""
    config = in_training(config)
    print(annotated(config))
    print(curve_text(config.trainer.optimizer_config))
    print(flush=True)


def show_model(config: ExperimentConfig) -> None:
    """Builds the model and the optimizer, and prints their groups and their memory.

    Raises:
        TrainingError: If they don't go together.
    """
    from optimization.training.inspection import innermost

    task, model, optimizer = built(config)
    sized = config.sized_optimizer_config()
    facts = {
        "task": type(task).__name__,
        "model": f"{model.name}, {model.count_params():,} parameters",
        **describe_optimization(sized),
        "steps": f"{config.trainer.train_steps:,}",
    }
    table = getattr(innermost(optimizer), "format_group_table", None)
    print(rows(facts))
    print()
    if table is not None:
        print(table())
        print()
    print(memory_text(memory(model, optimizer)))
    print("\ndry run: nothing was trained or written", flush=True)


def built(
    config: ExperimentConfig,
) -> "tuple[Task, keras.Model, keras.optimizers.Optimizer]":
    """Returns the task, the model and the optimizer of an experiment, built on one device.

    Raises:
        TrainingError: If they don't go together.
    """
    import keras

    from optimization.training import building

    task = get_task_class(config.task)(config.task)
    keras.utils.clear_session()
    keras.utils.set_random_seed(config.runtime.seed)
    with building.dtype_policy(config.runtime):
        model = building.build_model(task, initialize=False)
        optimizer_config = config.sized_optimizer_config()
        optimizer = building.build_optimizer(task, optimizer_config, config.runtime, model)
    return task, model, optimizer


def annotated(config: ExperimentConfig) -> str:
    """Returns the settings as YAML, with a comment where each that is not a default was written."""
    text = config.to_yaml()
    lines = text.splitlines()
    origins = {leaf.path: leaf.origin for leaf in leaves(config)}
    notes = {line - 1: origins.get(path, DEFAULT) for path, line in key_lines(text)}
    notes = {line: origin for line, origin in notes.items() if origin != DEFAULT}
    of_python = f"experiment {config.experiment}" if config.experiment else "Python"
    width = max((len(lines[line]) for line in notes), default=0)
    for line, origin in notes.items():
        written = of_python if origin == PYTHON else str(origin)
        lines[line] = f"{lines[line]:<{min(width, 60)}}  # {written}"
    return "\n".join([*lines, ""])


def curve_text(config: OptimizationConfig) -> str:
    """Returns the learning rates of all groups, drawn; why not, where that can't be.

    Args:
        config: The optimization section, steps as numbers.
    """
    try:
        return str(picture_of_all(config))
    except ConfigError as error:
        return f"learning rate: not drawn: {error}"


def memory(model: "keras.Model", optimizer: "keras.optimizers.Optimizer") -> dict[str, int]:
    """Returns the bytes that a training keeps on each device, by what they are for.

    Gradients count once, in the dtype of their variables; what layers compute in between, which
    depends on the batch, is not known here.

    Args:
        model: The model, built.
        optimizer: The optimizer, built.
    """
    from optimization.keras.stages.accumulate import Accumulate
    from optimization.keras.stages.average import Average
    from optimization.training.inspection import innermost

    inner: Any = innermost(optimizer)
    frozen: set[int] = getattr(inner, "frozen_variables", set)()
    trained = [v for v in model.trainable_variables if id(v) not in frozen]
    kinds = {"averages": Average, "accumulated gradients": Accumulate}
    own: dict[str, list[Any]] = {kind: [] for kind in kinds}
    if hasattr(inner, "stage"):
        own = {k: [*inner.stage(stage).variables_by_path().values()] for k, stage in kinds.items()}
    told = {id(variable) for variables in own.values() for variable in variables}
    others = {id(v): v for v in [*optimizer.variables, *inner.variables] if id(v) not in told}
    return {
        "weights": _bytes(model.variables),
        "gradients": _bytes(trained),
        "optimizer state": _bytes(others.values()),
        **{kind: _bytes(variables) for kind, variables in own.items()},
    }


def _bytes(variables: "Iterable[keras.Variable]") -> int:
    return sum(math.prod(v.shape) * _bits(v.dtype) for v in variables) // 8


def _bits(dtype: str) -> int:
    """Returns the size of a number: 16 of "bfloat16"; a bool takes a byte."""
    return int(re.sub(r"\D.*", "", dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) or 8)


def memory_text(kinds: Mapping[str, int]) -> str:
    """Returns what `memory` returns as a table, with the sum.

    >>> print(memory_text({"weights": 8 * 2**20, "gradients": 6 * 2**20, "averages": 0}))
    memory on each device, beside what the layers compute
      weights    8.0 MiB
      gradients  6.0 MiB
      together   14.0 MiB
    """
    told = {kind: size for kind, size in kinds.items() if size}
    told["together"] = sum(told.values())
    unit, name = next(
        (u, n)
        for u, n in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
        if told["together"] >= 8 * u or u == 1
    )
    table = {kind: f"{size / unit:,.1f} {name}" for kind, size in told.items()}
    return f"memory on each device, beside what the layers compute\n{rows(table)}"
