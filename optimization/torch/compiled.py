"""Optimizers whose steps `torch.compile` compiles."""

import types
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from optimization.configs.optimization_config import OptimizationConfig
from optimization.torch.lists import number
from optimization.torch.recipes import Part, clip_curves
from optimization.torch.rule_optimizer import RuleOptimizer
from optimization.torch.schedule_free import ScheduleFree
from optimization.torch.summed import Summed

# The compiler of PyTorch 2.6 fails with errors of its own on steps over lists.
COMPILES = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8)


def compile_step(optimizer: Any, capturable: bool = False) -> None:
    """Has the steps of an optimizer compiled, once for all rates.

    Learning rates become tensors, which schedulers set in place: numbers would be compiled in, and
    compiled again at each step. Copies of the optimizer are not compiled.

    Args:
        optimizer: What `build_optimizer` makes.
        capturable: Whether steps become CUDA graphs, which takes that all state is on the device.
    """
    for group in optimizer.param_groups:
        if group["lr"] is not None and not isinstance(group["lr"], Tensor):
            device = group["params"][0].device
            group["lr"] = torch.tensor(number(group["lr"]), dtype=torch.float32, device=device)
    mode = "reduce-overhead" if capturable else None
    step = torch.compile(type(optimizer).step, mode=mode)
    optimizer.step = types.MethodType(step, optimizer)


def refuse_to_compile(config: OptimizationConfig, parts: Iterable[Part]) -> None:
    """Raises a `ValueError` for what a compiled step can't do, of a config and its optimizers."""
    state = config.optimizer.get().state
    if state is not None and state.is_rounded:
        raise ValueError("Argument `compile`: the `state` is rounded at each step; leave it out")
    for name in ("zclip", "skip_spikes"):
        if getattr(config, name) is not None:
            raise ValueError(f"Argument `compile`: `{name}` looks at numbers; leave it out")
    if any(group.freeze_steps for group in config.groups()):
        raise ValueError("Argument `compile`: `freeze_steps` counts in groups; leave it out")
    for part in parts:
        scheduled = [*part.schedules, *part.recipe.schedules, *clip_curves(config)]
        if scheduled:
            raise ValueError(
                f"Argument `compile`: `{scheduled[0]}` follows a schedule, and each of its values "
                "would be compiled in; leave it out"
            )
        if issubclass(part.recipe.cls, ScheduleFree | Summed):
            raise ValueError(f"Argument `compile`: {part.type} counts in groups; leave it out")
        if issubclass(part.recipe.cls, RuleOptimizer) and part.recipe.cls.rule.branches:
            raise ValueError(
                f"Argument `compile`: {part.type} does other things in some steps than in others, "
                "by its count, and torch compiles no such branch; leave it out"
            )
        if issubclass(part.recipe.cls, RuleOptimizer) and not COMPILES:
            raise ValueError(
                f"Argument `compile`: the steps of {part.type} take PyTorch 2.8 or later, this is "
                f"{torch.__version__}; leave it out"
            )
