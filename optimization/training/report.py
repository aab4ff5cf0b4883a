"""What a run says: before it starts what it does, and at its end how well, and what is where."""

import os
import shlex
import typing
from collections.abc import Mapping
from typing import Any

from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.oneof import OneOfConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.ramp import Ramp
from optimization.training.checkpoint_files import latest_checkpoint, whole_checkpoints
from optimization.training.history import PARAMS_FILE

if typing.TYPE_CHECKING:
    from optimization.keras.group_table import GroupRow
    from optimization.training.trainer import Trainer


def describe_section(section: OneOfConfig, defaults: bool = False) -> str:
    """Returns `type` and what was set, or all with `defaults`, such as `sgd (momentum 0.9)`."""
    branch = section.get()
    if branch is None:
        return "none"
    told = branch.as_dict() if defaults else dict(branch._changed())
    values = _listed(told)
    return f"{section.type} ({values})" if values else str(section.type)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if name != "name")


def describe_optimization(config: OptimizationConfig) -> dict[str, str]:
    """Returns the optimizer, the learning rate, the warmup and the average, in words."""
    own = config.optimizer.get().own_learning_rate()
    facts = {
        "optimizer": describe_section(config.optimizer),
        "learning rate": (
            describe_section(config.learning_rate, defaults=True)
            if own is None
            else f"{own.name}, the optimizer's own"
        ),
    }
    if config.warmup.type is not None:
        facts["warmup"] = describe_section(config.warmup, defaults=True)
    if config._schedule_start:
        facts["schedules"] = f"from step {config._schedule_start:,} on"
    if (accumulation := config.accumulation) is not None:
        facts["micro-batches"] = _described(accumulation.ramp())
    if (average := config.average_arguments()) is not None:
        facts["weight average"] = _listed(average)
    return facts


def _described(ramp: Ramp) -> str:
    """Returns how many micro-batches updates are of, in words."""
    later = zip(ramp.counts[1:], ramp.boundaries, strict=True)
    return ", ".join([f"{ramp.counts[0]}", *(f"{n} from step {s:,}" for n, s in later)])


def describe_settings(config: OptimizationConfig, optimizer: Any) -> list[str]:
    """Returns what a config does not say by itself: the scaled rate, and an optimizer's groups."""
    lines = []
    if scaling := config.lr_scaling:
        lines.append(
            f"learning rate x {scaling.factor():.4g}: batch {scaling.global_batch_size} / "
            f"{scaling.base_batch_size}, {scaling.rule}{_as_written(scaling.kept())}"
        )
    table: list[GroupRow] = getattr(optimizer, "group_table", list)()
    if any(row.rule or row.multiplier != 1.0 for row in table):
        lines += optimizer.format_group_table().splitlines()
    return lines


def _as_written(names: tuple[str, ...]) -> str:
    """Returns what of a learning rate is not scaled, in words."""
    return f"; {' and '.join(names)} as written" if names else ""


def describe_run(trainer: "Trainer") -> str:
    """Returns what is trained or evaluated, and with what, one fact a line."""
    model, replicas = trainer.model, trainer.strategy.num_replicas_in_sync
    done = f", {trainer.step:,} of them done" if trainer.step else ""
    return rows(
        {
            "task": type(trainer.task).__name__,
            "model": f"{model.name}, {model.count_params():,} parameters",
            **describe_optimization(trainer.optimizer_config),
            "steps": f"{trainer.config.trainer.train_steps:,}{done}",
            "devices": f"{replicas} ({type(trainer.strategy).__name__})" if replicas > 1 else "1",
        }
    )


def describe_checkpoint(trainer: "Trainer", path: str, averaged: bool) -> str:
    """Returns what a checkpoint that was restored is, or its averaged weights, with its path."""
    directory, own = os.path.dirname(path), os.path.normpath(trainer.model_dir)
    kind = "checkpoint"
    if _same(directory, best_directory(trainer.config, own)):
        kind = "best weights"
    elif _same(path, latest_checkpoint(own, "previous")):
        kind = "latest checkpoint"
    return f"{path} ({kind}, step {trainer.step:,}{', averaged weights' if averaged else ''})"


def _same(path: str, other: str | None) -> bool:
    return other is not None and os.path.realpath(path) == os.path.realpath(other)


def final_report(trainer: "Trainer", results: dict[str, float], seconds: float) -> str:
    """Returns what came of a run, one fact a line."""
    total, directory = trainer.config.trainer.train_steps, trainer.model_dir
    of_all = f" of {total:,}" if trainer.step <= total else f", train_steps is {total:,}"
    best = best_directory(trainer.config, directory)
    params = os.path.join(directory, PARAMS_FILE)
    facts = {
        "evaluated": trainer.evaluated,
        "steps": f"{trainer.step:,}{of_all}",
        "took": f"{seconds:.1f} s",
        **{name: f"{value:.5g}" for name, value in results.items()},
        "checkpoints": directory,
        "best weights": best if best and whole_checkpoints(best) else "",
        "configuration": params if os.path.exists(params) else "",
        "summaries": f"tensorboard --logdir {shlex.quote(directory)}",
    }
    return rows({name: text for name, text in facts.items() if text})


def rows(facts: dict[str, str]) -> str:
    """Returns one fact a line, the names below each other."""
    width = max(map(len, facts))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in facts.items())


def best_directory(config: ExperimentConfig, model_dir: str) -> str | None:
    """Returns where the best weights are kept; None for nowhere."""
    subdir = config.trainer.best_checkpoint_export_subdir
    return os.path.join(model_dir, subdir) if subdir else None
