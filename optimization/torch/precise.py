"""State in bfloat16, and weights in bfloat16 without float32 copies: `StateConfig` in PyTorch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optimization.rules.rounding import bits_of, key_of, rounded, salt_of
from optimization.rules.state_config import StateConfig
from optimization.torch.lists import for_each
from optimization.torch.masters import LOW_PRECISION
from optimization.torch.shards import any_split

_AT_ONCE = 2**24  # entries of weights whose state is in float32 at the same time


def some_at_once(batch: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """Yields parts of a batch, lists of which the first are parameters, of not too many entries.

    Raises:
        ValueError: For parameters that are split over processes, whose bits would not be known.
    """
    if any_split(batch[0]):
        raise ValueError(
            "`state` of the optimizer is not for parameters that are split over processes: leave "
            "it out, or don't shard the parameters"
        )
    start = entries = 0
    for place, parameter in enumerate(batch[0]):
        if place > start and entries + parameter.numel() > _AT_ONCE:
            yield [column[start:place] for column in batch]
            start, entries = place, 0
        entries += parameter.numel()
    yield [column[start:] for column in batch]


def widened(slots: Mapping[str, list[Tensor]], dtype: torch.dtype) -> dict[str, list[Tensor]]:
    """Returns slots with those in bfloat16 in the dtype of the weights that are updated."""
    return {
        name: [x.to(dtype) if x.dtype == torch.bfloat16 else x for x in kept]
        for name, kept in slots.items()
    }


def store(
    state: StateConfig,
    group: Mapping[str, Any],
    params: Sequence[Tensor],
    weights: Sequence[Tensor],
    slots: tuple[Mapping[str, list[Tensor]], Mapping[str, list[Tensor]]],
    count: Any,
) -> None:
    """Rounds what an update has moved into what is kept.

    Args:
        state: How.
        group: That of the parameters, which has their names.
        params: The parameters.
        weights: What was updated: the parameters, copies, or what they are in float32.
        slots: Their state that is kept, and what it is after the update, by the names of the slots.
        count: The updates taken, with this one; one number for each parameter, or for all.
    """
    known = group.get("param_names") or range(len(group["params"]))
    names = dict(zip(map(id, group["params"]), known, strict=True))
    steps = [int(each) for each in for_each(count, len(params))]
    kept, moved = slots
    kinds: list[tuple[str, list[Tensor], list[Tensor], str]] = [
        (slot, kept[slot], moved[slot], state.rounding) for slot in kept
    ]
    if params[0].dtype in LOW_PRECISION:
        is_bfloat16 = params[0].dtype == torch.bfloat16
        how: str = state.weights if is_bfloat16 and not state.has_copies else "nearest"
        kinds.append(("weight", list(params), list(weights), how))
    for slot, own, values, rounding in kinds:
        for parameter, x, value, step in zip(params, own, values, steps, strict=True):
            if x is value:
                continue
            if rounding == "stochastic" and x.dtype == torch.bfloat16:
                round_into(x, value, salt_of(state.seed, names[id(parameter)], slot), step)
            else:
                x.copy_(value)


def round_into(x: Tensor, value: Tensor, salt: int, step: int) -> None:
    """Has a tensor in bfloat16 be another, rounded stochastically."""
    value = value.float()
    places = torch.arange(value.numel(), dtype=torch.int32, device=value.device)
    shift = torch.bitwise_right_shift
    key = key_of(salt, torch.tensor(step % 2**31, dtype=torch.int32, device=value.device), shift)
    word = rounded(value.view(torch.int32), bits_of(places.view(value.shape), key, shift))
    x.copy_(torch.where(torch.isfinite(value), word.view(torch.float32), value))
