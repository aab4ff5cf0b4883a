"""What the hook before a step keeps: for ZClip, for steps that are left out, for frozen groups.

What is kept of earlier steps is in the groups of the optimizer, the same in each, so that it is
saved and loaded with them: float64 tensors, which any process can read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from optimization.configs.spike_config import SkipSpikesConfig, ZClipConfig

ZCLIP, SKIPPED, RECENT = "zclip", "skipped_spikes", "recent_"
FROZEN = "frozen_steps"
KEPT = (ZCLIP, SKIPPED, f"{RECENT}gradient_norm", f"{RECENT}loss", FROZEN)
"""Under these keys groups have what is kept."""


def zclip_bound(config: ZClipConfig, norm: Tensor, groups: Sequence[dict[str, Any]]) -> float:
    """Returns the bound on the norm of a step, infinite for none; keeps what it learns."""
    kept = _kept(groups, ZCLIP, config.SIZE)
    with np.errstate(invalid="ignore"):  # of a norm that is not finite
        bound, moved = config.clip(np.float64(norm.item()), kept, np)
    _keep(groups, ZCLIP, torch.from_numpy(moved))
    return float(bound)


def is_spike(
    config: SkipSpikesConfig, values: Mapping[str, float], groups: Sequence[dict[str, Any]]
) -> bool:
    """Says whether the values of a step are spikes; keeps them, and counts the step if so."""
    found = []
    for name, value in values.items():
        kept = _kept(groups, RECENT + name, config.size)
        with np.errstate(invalid="ignore"):
            spike, moved = config.judge(np.float64(value), kept, np)
        _keep(groups, RECENT + name, torch.from_numpy(moved))
        found.append(bool(spike))
    if not any(SKIPPED in group for group in groups) or any(found):
        _keep(groups, SKIPPED, count_of(groups, SKIPPED) + any(found))
    return any(found)


def count_of(groups: Sequence[Mapping[str, Any]], name: str) -> int:
    """Returns a count that groups keep."""
    return next((int(group[name]) for group in groups if name in group), 0)


def _kept(groups: Sequence[Mapping[str, Any]], name: str, size: int) -> Any:
    """Returns what groups keep; zeros at first, and where another length of it was kept."""
    known = [group[name] for group in groups if name in group]
    right = known and known[0].shape == (size,)
    return known[0].cpu().double().numpy() if right else np.zeros(size)


def _keep(groups: Sequence[dict[str, Any]], name: str, value: Any) -> None:
    for group in groups:
        group[name] = value


def mean_of_losses(losses: Sequence[Any], device: torch.device) -> float:
    """Returns the mean of losses, over all processes.

    Raises:
        RuntimeError: If there are none.
    """
    if not losses:
        raise RuntimeError(
            "`skip_spikes` looks at the loss: call `optimizer.tell_loss(loss)` before `step()`, or "
            "give `step` a closure that returns it"
        )
    total = torch.stack([torch.as_tensor(x, dtype=torch.float64).detach().cpu() for x in losses])
    mean = total.mean().to(device, torch.float32 if device.type == "mps" else torch.float64)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean.item()


def without_frozen(
    groups: Sequence[dict[str, Any]], freeze_steps: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Takes the gradients of groups that are frozen for now, and returns these groups.

    Args:
        groups: The groups of an optimizer.
        freeze_steps: For how many steps groups are frozen, by the name of their rule.
    """
    frozen = [g for g in groups if g.get(FROZEN, 0) < freeze_steps.get(g.get("rule", ""), 0)]
    for parameter in (p for group in frozen for p in group["params"]):
        parameter.grad = None
    return frozen


def count_frozen(groups: Sequence[dict[str, Any]]) -> None:
    """Counts a step for which groups were frozen."""
    for group in groups:
        group[FROZEN] = group.get(FROZEN, 0) + 1
