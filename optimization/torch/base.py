"""What the optimizers of this package share: numbers, blank state, and lists of like tensors."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from optimization.torch.masters import LOW_PRECISION

Lists = list[list[Any]]


def number(value: Any) -> Any:
    """Returns a hyperparameter or a count as a Python number; as it is where torch compiles."""
    if isinstance(value, Tensor) and not torch.compiler.is_compiling():
        return value.item()
    return value


def zeros_like(parameter: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Returns state of zeros: float32 at least, laid out as the parameter."""
    dtype = torch.float32 if parameter.dtype in LOW_PRECISION else parameter.dtype
    if shape is not None:
        return torch.zeros(shape, dtype=dtype, device=parameter.device)
    return torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)


def batches(lists: Lists, foreach: bool | None = None) -> Iterator[Lists]:
    """Yields lists of tensors of one device and dtype, and what belongs to them.

    Args:
        lists: Tensors, and lists of as many things that belong to them.
        foreach: False for each tensor by itself.
    """
    params = lists[0]
    if foreach is False:
        yield from ([[item] for item in items] for items in zip(*lists, strict=True))
        return
    together: dict[tuple, list[int]] = {}
    for index, parameter in enumerate(params):
        together.setdefault((parameter.device, parameter.dtype), []).append(index)
    for indices in together.values():
        yield [[items[index] for index in indices] for items in lists]
