"""An average of weights that were saved."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Saved = str | os.PathLike | Mapping[str, Any]
"""A file of `torch.save`, or what it holds."""


def average_weights(checkpoints: Sequence[Saved], key: str | None = None) -> dict[str, Tensor]:
    """Returns the mean of the weights of several checkpoints, for `model.load_state_dict`.

    Each counts as much as any other. Means are computed in float64, and have the dtype of the
    weights; integers, such as counts of batches, are those of the last.

    >>> average_weights([{"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0])}])
    {'w': tensor([2.5000])}

    Args:
        checkpoints: Files, which are loaded with `weights_only=True` one at a time, or the mappings
            that they hold; the latest one last.
        key: Where the weights are in each, such as "model"; None where each is the weights.

    Raises:
        ValueError: If there is none, if weights are not where `key` says, or if they differ in
            names or shapes.
    """
    if isinstance(checkpoints, str | os.PathLike | Mapping) or not checkpoints:
        message = f"must be a list of checkpoints, received: {checkpoints!r:.60}"
        raise ValueError(f"Argument `checkpoints` {message}")
    sums: dict[str, Tensor] = {}
    kinds: dict[str, tuple[torch.Size, torch.dtype]] = {}
    for number, checkpoint in enumerate(checkpoints):
        own = _weights_of(checkpoint, key, number)
        found = {name: (value.shape, value.dtype) for name, value in own.items()}
        kinds = kinds or found
        if found != kinds:
            names = sorted(n for n in {*found, *kinds} if found.get(n) != kinds.get(n))
            message = f"number {number} differs from the first in {', '.join(names[:5])}"
            raise ValueError(f"Argument `checkpoints` must hold the same weights: {message}")
        for name, value in own.items():
            if value.dtype.is_floating_point:
                value = value.detach().cpu().double()
                sums[name] = sums[name].add_(value) if number else value.clone()
            else:
                sums[name] = value.detach().cpu().clone()
    return {
        name: (total / len(checkpoints)).to(kinds[name][1])
        if kinds[name][1].is_floating_point
        else total
        for name, total in sums.items()
    }


def _weights_of(checkpoint: Saved, key: str | None, number: int) -> Mapping[str, Tensor]:
    state: Any = checkpoint
    if not isinstance(checkpoint, Mapping):
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    place = f"checkpoint {number}" if isinstance(checkpoint, Mapping) else os.fspath(checkpoint)
    if key is not None:
        if not isinstance(state, Mapping) or key not in state:
            keys = ", ".join(map(repr, state)) if isinstance(state, Mapping) else "no keys"
            raise ValueError(f"Argument `key`: {place} has no {key!r}; it has {keys:.200}")
        state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        items = state.items() if isinstance(state, Mapping) else ()
        names = [repr(n) for n, v in items if isinstance(v, Mapping)]
        hint = f"; write `key`, one of {', '.join(names)}" if names and key is None else ""
        raise ValueError(f"{place} does not hold tensors by name there, as weights are saved{hint}")
    return state
