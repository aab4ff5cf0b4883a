"""What a config asks for that PyTorch does not have natively."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from optimization.configs.errors import Problem
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.rules.rule import Rule
from optimization.schedules.metric import MetricLrConfig
from optimization.torch.recipes import Part, type_of
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


def _is_native(name: str) -> bool:
    entry = OPTIMIZERS_CLS.entry(name)
    return entry.torch is not None or issubclass(entry.config_class, Rule)


def unknown_hyperparameters(
    config: OptimizationConfig, parts: Mapping[str, Part]
) -> Iterable[Problem]:
    """Yields schedules of what the class, as PyTorch has it, does not have."""
    for kind, section, recipe, schedules in parts.values():
        known = {**inspect.signature(recipe.cls).parameters, **recipe.arguments}
        for name, argument in schedules.items():
            is_decay = argument == section.argument_name("weight_decay")
            if not is_decay and place_of(known, argument) is None:
                message = f"the class of `{kind}` in PyTorch has no `{argument}`"
                yield config._problem("conflict", f"schedules.{name}", message)


def native_problems(config: OptimizationConfig) -> Iterable[Problem]:
    """Yields what PyTorch does not have natively."""
    section = config.optimizer.get()
    yield from _not_native(config)
    if not _is_native(type_of(config.optimizer)):
        return
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


def _not_native(config: OptimizationConfig) -> Iterable[Problem]:
    having = ", ".join(filter(_is_native, OPTIMIZERS_CLS))
    for oneof in (config.optimizer, *(group.optimizer for group in config.param_groups)):
        if oneof.type is not None and not _is_native(oneof.type):
            message = f"`{oneof.type}` has no native PyTorch implementation; these have: {having}"
            yield oneof._problem("conflict", "type", message)


def _followed(config: OptimizationConfig) -> Iterable[Problem]:
    """Yields what a scheduler that follows a metric, and counts no steps, cannot set."""
    rate = config.learning_rate
    if not isinstance(rate.get(), MetricLrConfig):
        return
    for group in config.param_groups:
        if group.learning_rate.type is not None:
            message = f"`{rate.type}` changes the rates of all groups of a torch.optim.Optimizer"
            yield group._problem("conflict", "learning_rate", message)
    own = (group.optimizer.get() for group in config.param_groups)
    sections = [config.optimizer.get(), *filter(None, own)]
    if config.schedules or any(section.own_schedules() for section in sections):
        message = "follows a metric in PyTorch, and nothing then sets what follows the steps"
        yield rate._problem("conflict", "type", message)


def check_options(cls: type[Optimizer], options: dict[str, Any]) -> None:
    """Raises a `ValueError` for an argument that a class does not have."""
    known = inspect.signature(cls).parameters
    for name in options:
        if name not in known:
            raise ValueError(f"Argument `{name}`: {cls.__name__} does not have it")
