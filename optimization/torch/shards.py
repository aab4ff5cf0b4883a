"""Weights that are split over processes, as `DTensor`s: their shards, and sums over all of them.

FSDP2 (`fully_shard`) and tensor parallelism split weights so. What is computed is computed with
shards, which are plain tensors: elementwise it makes no difference. Sums over whole tensors are
added up over the processes, by one collective for all tensors.
"""

import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from optimization.torch.lists import PLAIN


def is_split(tensor: Any) -> bool:
    """Says whether a tensor is a `DTensor`, of which each process has a part."""
    return hasattr(tensor, "device_mesh")


def any_split(tensors: Sequence[Any]) -> bool:
    """Says whether any is a `DTensor`; quick where there are many."""
    return not {type(x) for x in tensors} <= {*PLAIN} and any(is_split(x) for x in tensors)


def own_part(tensor: Any) -> Any:
    """Returns the shard of a `DTensor`, which shares its memory; anything else as it is."""
    return tensor.to_local() if is_split(tensor) else tensor


def own_parts(tensors: Iterable[Any]) -> list[Any]:
    """Returns `own_part` of each."""
    return [own_part(tensor) for tensor in tensors]


def whole(tensor: Any) -> Any:
    """Returns all of a `DTensor`, gathered; anything else as it is."""
    return tensor.full_tensor() if is_split(tensor) else tensor


def part_of(full: Tensor, like: Any) -> Tensor:
    """Returns what a process has of a whole tensor that is split as a `DTensor` is."""
    module = sys.modules["torch.distributed.tensor"]
    everywhere = [module.Replicate()] * like.device_mesh.ndim
    made = module.DTensor.from_local(full, like.device_mesh, everywhere, run_check=False)
    return made.redistribute(placements=like.placements).to_local()


def split_as(part: Tensor, like: Any) -> Any:
    """Returns the whole, as a `DTensor`, of parts that have the place of those of another one."""
    mesh, placements = like.device_mesh, like.placements
    made = type(like.detach()).from_local
    return made(part, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


def aligned(gradient: Any, parameter: Any) -> Any:
    """Returns a gradient that is split as its parameter, as it need not be otherwise."""
    if is_split(gradient) and gradient.placements != parameter.placements:
        return gradient.redistribute(placements=parameter.placements)
    return gradient


class Layout(NamedTuple):
    """How a tensor is split: its whole shape, that of the part, and who shares each axis."""

    shape: tuple[int, ...]
    local: tuple[int, ...]
    sharers: tuple[tuple[Any, ...], ...]  # for each axis, groups of processes


def layout_of(tensor: Any) -> Layout:
    """Returns the layout of a tensor, split or not."""
    shape = tuple(tensor.shape)
    sharers: list[list[Any]] = [[] for _ in shape]
    if is_split(tensor):
        for index, placement in enumerate(tensor.placements):
            if not placement.is_replicate():
                sharers[placement.dim].append(tensor.device_mesh.get_group(index))
    return Layout(shape, tuple(own_part(tensor).shape), tuple(map(tuple, sharers)))


def added_up(parts: Sequence[Tensor], sharers: Sequence[Collection[Any]]) -> list[Tensor]:
    """Returns the sum of each part over its groups of processes: a collective for each group."""
    found = list(parts)
    indices: dict[Any, tuple[Any, list[int]]] = {}
    for index, (part, groups) in enumerate(zip(parts, sharers, strict=True)):
        for group in groups:
            key = (group.group_name, part.device, part.dtype)
            indices.setdefault(key, (group, []))[1].append(index)
    for group, own in indices.values():
        flat = torch.cat([found[index].reshape(-1) for index in own])
        dist.all_reduce(flat, group=group)
        for index, total in zip(own, flat.split([found[i].numel() for i in own]), strict=True):
            found[index] = total.view(found[index].shape)
    return found


def norms_of_parts(
    parts: Sequence[Tensor],
    layouts: Sequence[Layout],
    axes: Sequence[tuple[int, ...] | None] | None = None,
) -> list[Tensor]:
    """Returns the L2 norm of whole tensors, given what this process has of each, in float64.

    With `axes`, for each tensor, it is that over these axes, which stay, of length 1.
    """
    squares, sharers = [], []
    for index, (part, layout) in enumerate(zip(parts, layouts, strict=True)):
        own = None if axes is None else axes[index]
        over = range(part.dim()) if own is None else own
        found: Any = {} if own is None else {"dim": own, "keepdim": True}
        squares.append(torch.linalg.vector_norm(part, dtype=torch.float64, **found).square())
        sharers.append([group for axis in over for group in layout.sharers[axis]])
    return [square.sqrt() for square in added_up(squares, sharers)]


def all_zero(tensors: Iterable[Tensor | None]) -> bool:
    """Says whether all whole tensors are 0; each process says the same."""
    given = [tensor for tensor in tensors if tensor is not None]
    found = [own_part(tensor).any().float() for tensor in given]
    return not any(added_up(found, [{*sum(layout_of(t).sharers, ())} for t in given]))


def starts_idle(optimizer: Any) -> bool:
    """Says whether the first step of an optimizer has rates and gradients of 0 alone.

    torch's distributed checkpoints have an optimizer make its state so, and expect nothing to move,
    also by a decay that has no rate or by a rule that divides by it.
    """
    params = [p for group in optimizer.param_groups[:1] for p in group["params"][:1]]
    if torch.compiler.is_compiling() or any(optimizer.state.get(p) for p in params):
        return False  # as is known at once
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if any(optimizer.state.get(p) for p in params):
        return False
    rates = [group["lr"] for group in optimizer.param_groups]
    has_none = all(rate is not None and rate == 0 for rate in rates)
    return has_none and all_zero([p.grad for p in params])


def size_of(layout: Layout) -> int:
    """Returns how many entries a whole tensor has."""
    return math.prod(layout.shape)


def has_gradients(group: Mapping[str, Any]) -> bool:
    """Says whether any parameter of a group has a gradient."""
    return any(p.grad is not None for p in group["params"])
