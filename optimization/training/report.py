"""What a run says at its end: what was done, how well, and where things are."""

import os
import typing

from optimization.configs.base import OneOfConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.training.inspection import innermost

if typing.TYPE_CHECKING:
    import keras

    from optimization.training.trainer import Trainer


def describe_section(section: OneOfConfig, defaults: bool = False) -> str:
    """Returns `type` and its values, such as `sgd (momentum 0.9)`.

    Args:
        section: The oneof.
        defaults: Whether values that are their defaults are told too.
    """
    branch = section.get()
    if branch is None:
        return "none"
    usual = {} if defaults else type(branch)().as_dict()
    values = ", ".join(
        f"{name} {value}"
        for name, value in branch.as_dict().items()
        if name != "name" and (name not in usual or usual[name] != value)
    )
    return f"{section.type} ({values})" if values else str(section.type)


def describe_optimization(config: OptimizationConfig) -> dict[str, str]:
    """Returns the optimizer, the learning rate, the warmup and the average, in words."""
    own = config.optimizer.get().own_learning_rate()
    rows = {
        "optimizer": describe_section(config.optimizer),
        "learning rate": (
            describe_section(config.learning_rate, defaults=True)
            if own is None
            else f"{own.name}, the optimizer's own"
        ),
    }
    if config.warmup.type is not None:
        rows["warmup"] = describe_section(config.warmup, defaults=True)
    average = config.average_arguments()
    if average is not None:
        values = ", ".join(f"{name} {value}" for name, value in average.items())
        rows["weight average"] = values
    return rows


def describe_settings(
    config: OptimizationConfig, optimizer: "keras.optimizers.Optimizer"
) -> list[str]:
    """Returns what a config does not say by itself: the scaled learning rate, and the groups.

    Args:
        config: The config, with steps and batch sizes as numbers.
        optimizer: What was made of it, built.
    """
    lines = []
    scaling = config.lr_scaling
    if scaling is not None:
        lines.append(
            f"learning rate x {scaling.factor():.4g}: batch {scaling.global_batch_size} / "
            f"{scaling.base_batch_size}, {scaling.rule}"
        )
    inner = innermost(optimizer)
    rows = getattr(inner, "group_table", list)()
    if any(row.rule or row.multiplier != 1.0 for row in rows):
        lines += inner.format_group_table().splitlines()
    return lines


def final_report(trainer: "Trainer", results: dict[str, float], seconds: float) -> str:
    """Returns the summary of a run, one fact a line."""
    config, model = trainer.config, trainer.model
    replicas = trainer.strategy.num_replicas_in_sync
    rows = {
        "task": type(trainer.task).__name__,
        "model": f"{model.name}, {model.count_params():,} parameters",
        **describe_optimization(trainer.optimizer_config),
        "steps": f"{trainer.step:,} of {config.trainer.train_steps:,}",
        "devices": f"{replicas} ({type(trainer.strategy).__name__})" if replicas > 1 else "1",
        "took": f"{seconds:.1f} s",
    }
    rows |= {name: f"{value:.5g}" for name, value in results.items()}
    rows |= _places(trainer)
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())


def _places(trainer: "Trainer") -> dict[str, str]:
    directory, settings = trainer.model_dir, trainer.config.trainer
    best = os.path.join(directory, settings.best_checkpoint_export_subdir)
    places = {
        "checkpoints": directory,
        "best weights": best if settings.best_checkpoint_export_subdir else "",
        "configuration": os.path.join(directory, "params.yaml"),
        "summaries": f"tensorboard --logdir {directory}",
    }
    return {name: place for name, place in places.items() if place}
