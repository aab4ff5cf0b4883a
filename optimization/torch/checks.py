"""What a config asks for that PyTorch does not have natively."""

import inspect
import typing
from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from optimization.configs.errors import Problem
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.rules.rule import Rule
from optimization.schedules.metric import MetricLrConfig
from optimization.torch.recipes import Recipe
from optimization.torch.schedule import place_of

REFUSED = {
    "gradient_accumulation_steps": (
        "is the training loop's in PyTorch: call `backward()` that often, on the loss divided by "
        "it, before each `step()`"
    ),
    "max_consecutive_nonfinite": "is not there natively: `torch.amp.GradScaler` skips such steps",
    "jit_compile": "is for XLA; in PyTorch it is `torch.compile(optimizer.step)`",
    "loss_scale_factor": "is `torch.amp.GradScaler(init_scale=...)` in PyTorch",
    "ema_overwrite_frequency": (
        "is the training loop's in PyTorch: copy the average's parameters into the model"
    ),
}
"""What belongs to the training loop of PyTorch, and what does it there."""


def type_of(config: OptimizationConfig) -> str:
    """Returns the type of the optimizer."""
    return typing.cast(str, config.optimizer.type)  # a validated config has one


def _is_native(name: str) -> bool:
    entry = OPTIMIZERS_CLS.entry(name)
    return entry.torch is not None or issubclass(entry.config_class, Rule)


def unknown_hyperparameters(config: OptimizationConfig, recipe: Recipe) -> Iterable[Problem]:
    """Yields schedules of what the class, as PyTorch has it, does not have."""
    known = {**inspect.signature(recipe.cls).parameters, **recipe.arguments}
    section = config.optimizer.get()
    for name in config.schedules:
        argument = section.argument_name(name)
        is_decay = argument == section.argument_name("weight_decay")
        if not is_decay and place_of(known, argument) is None:
            message = f"the class of `{config.optimizer.type}` in PyTorch has no `{argument}`"
            yield config._problem("conflict", f"schedules.{name}", message)


def native_problems(config: OptimizationConfig) -> Iterable[Problem]:
    """Yields what PyTorch does not have natively."""
    oneof = config.optimizer
    if not _is_native(type_of(config)):
        having = ", ".join(filter(_is_native, OPTIMIZERS_CLS))
        message = f"`{oneof.type}` has no native PyTorch implementation; these have: {having}"
        yield oneof._problem("conflict", "type", message)
        return
    section = oneof.get()
    defaults = type(section)()
    for name in section.pipeline_fields():
        value = getattr(section, name)
        compiles_nothing = name == "jit_compile" and value in ("auto", False)
        if name in REFUSED and value != getattr(defaults, name) and not compiles_nothing:
            yield section._problem("conflict", name, REFUSED[name])
    if section.on_nonfinite == "skip":
        message = "cannot be `skip` in PyTorch: `torch.amp.GradScaler` skips such steps"
        yield section._problem("conflict", "on_nonfinite", message)
    yield from _followed(config)
    for group in config.param_groups:
        if group.optimizer.type is not None:
            message = "a torch.optim.Optimizer has one algorithm for all groups"
            yield group._problem("conflict", "optimizer", message)


def _followed(config: OptimizationConfig) -> Iterable[Problem]:
    """Yields what a scheduler that follows a metric, and counts no steps, cannot set."""
    rate = config.learning_rate
    if not isinstance(rate.get(), MetricLrConfig):
        return
    for group in config.param_groups:
        if group.learning_rate.type is not None:
            message = f"`{rate.type}` changes the rates of all groups of a torch.optim.Optimizer"
            yield group._problem("conflict", "learning_rate", message)
    section = config.optimizer.get()
    if config.schedules or section.own_schedules():
        message = "follows a metric in PyTorch, and nothing then sets what follows the steps"
        yield rate._problem("conflict", "type", message)


def check_options(cls: type[Optimizer], options: dict[str, Any]) -> None:
    """Raises a `ValueError` for an argument that a class does not have."""
    known = inspect.signature(cls).parameters
    for name in options:
        if name not in known:
            raise ValueError(f"Argument `{name}`: {cls.__name__} does not have it")
