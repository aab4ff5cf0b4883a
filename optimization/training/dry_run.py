"""A dry run: what a training would be, shown before anything is trained or written."""

import math
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from optimization.configs.base import Config
from optimization.configs.errors import DEFAULT, PYTHON, Origin
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import RateCurve, curve_of
from optimization.training.registries import get_task_class
from optimization.training.report import describe_optimization, rows

if typing.TYPE_CHECKING:
    import keras

    from optimization.training.task import Task

_BAR = 24  # characters for the highest rate


def show_settings(config: ExperimentConfig) -> None:
    """Prints the settings with where each comes from, and the learning rate; no framework."""
    sized = config.sized_optimizer_config()
    twin = config.replace()
    twin.trainer.__dict__["optimizer_config"] = sized
    print(annotated(twin))
    print(curve_text(sized, config.trainer.train_steps))
    print(flush=True)


def show_model(config: ExperimentConfig) -> None:
    """Builds the model and the optimizer, and prints their groups and their memory.

    Raises:
        TrainingError: If they don't go together.
    """
    task, model, optimizer = built(config)
    sized = config.sized_optimizer_config()
    facts = {
        "task": type(task).__name__,
        "model": f"{model.name}, {model.count_params():,} parameters",
        **describe_optimization(sized),
        "steps": f"{config.trainer.train_steps:,}",
    }
    table = getattr(getattr(optimizer, "inner_optimizer", optimizer), "format_group_table", None)
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
    notes = dict(_origins(config, yaml.compose(text, yaml.SafeLoader)))
    of_python = f"experiment {config.experiment}" if config.experiment else "Python"
    width = max((len(lines[line]) for line in notes), default=0)
    for line, origin in notes.items():
        if origin != DEFAULT:
            written = of_python if origin == PYTHON else str(origin)
            lines[line] = f"{lines[line]:<{min(width, 60)}}  # {written}"
    return "\n".join([*lines, ""])


def _origins(config: Config, node: Any) -> Iterator[tuple[int, Origin]]:
    """Yields the line of each value of a config in its YAML, and where the value was written."""
    values = dict(config._items())
    for key, below in node.value:
        value = values[key.value]
        if isinstance(value, Config):
            yield from _origins(value, below)
        elif value and isinstance(value, Mapping):
            for name, item in below.value:
                if isinstance(value[name.value], Config):
                    yield from _origins(value[name.value], item)
        elif value and isinstance(value, list | tuple) and isinstance(value[0], Config):
            for item, of_item in zip(value, below.value, strict=True):
                yield from _origins(item, of_item)
        else:
            yield key.start_mark.line, config._origins.get(key.value, DEFAULT)


def curve_text(config: OptimizationConfig, train_steps: int) -> str:
    """Returns the learning rate at telling steps, one a line with a bar, for each that there is.

    Args:
        config: The optimization section, steps as numbers.
        train_steps: The length of the training in optimizer steps.
    """
    own = [group for group in config.param_groups if group.learning_rate.type is not None]
    curves = {"": _main_curve(config)} | {g.label: curve_of(config, g) for g in own}
    parts = []
    for label, curve in curves.items():
        title = f"learning rate of {label}" if label else "learning rate"
        if curve is None or not curve.is_computable(train_steps):
            parts.append(f"{title}: not a formula that can be computed without Keras")
            continue
        steps = _telling(curve, train_steps)
        values = curve.values(steps)
        top = max(values) or 1.0
        width = len(f"{steps[-1]:,}")
        parts.append(title)
        parts += [
            f"  step {step:>{width},}  {value:<11.4g}{'█' * round(_BAR * value / top)}".rstrip()
            for step, value in zip(steps, values, strict=True)
        ]
    return "\n".join(parts)


def _main_curve(config: OptimizationConfig) -> RateCurve | None:
    curve = curve_of(config, config)
    if config.optimizer.get().own_learning_rate() is None:
        return curve
    return RateCurve(*config.learning_rate_of())


def _telling(curve: RateCurve, train_steps: int) -> list[int]:
    """Returns the ends, eighths, the end of the warmup, and where the curve bends if that's few."""
    last = train_steps - 1
    marks = {last * part // 8 for part in range(9)} | {curve.warmup_length()[2]}
    bends = {mark + side for mark in curve.bends() for side in (-1, 0)}
    marks |= bends if len(bends) <= 16 else set()
    return sorted(step for step in marks if 0 <= step <= last)


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
