"""Torch's classes by their fused kernels: where these are exact, and what they need for it."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.torch.lists import PLAIN, is_plain

_CLASSES = {
    torch.optim.Adam: ("cpu", "cuda"),
    torch.optim.AdamW: ("cpu", "cuda"),
    torch.optim.SGD: ("cpu", "cuda"),
    torch.optim.Adagrad: ("cpu",),
}
"""The classes of torch that are fused, with the devices where they are."""


DEVICES = _CLASSES[torch.optim.AdamW]
"""Where torch has its kernel of Adam."""


def is_usual(cls: type[Optimizer], params: Iterable[Tensor]) -> bool:
    """Says whether a class of torch updates parameters by its fused kernel unless told otherwise.

    It does where that is exact: see `made_ready` for what else there is to it.
    """
    devices = _CLASSES.get(cls, ())
    return bool(devices) and all(
        is_plain(p) and p.is_floating_point() and p.device.type in devices for p in params
    )


@contextlib.contextmanager
def made_ready(optimizer: Any, divisor: Tensor | None) -> Iterator[None]:
    """Has fused kernels of torch's classes find what they need, during a step.

    They take all tensors for laid out as the parameter, without a look; they know no sparse
    gradients; and that of SGD needs the momentum of all parameters or of none. `divisor` is what
    they divide gradients by; None for 1.
    """
    replaced = []
    for group in optimizer.param_groups if not torch.compiler.is_compiling() else ():
        if not group.get("fused"):
            continue
        pairs = [(p, g) for p in group["params"] if (g := p.grad) is not None]
        params, grads = [p for p, _ in pairs], [g for _, g in pairs]
        if {g.layout for g in grads} - {torch.strided}:
            group["fused"] = False
            continue
        contiguous = all(map(Tensor.is_contiguous, params)) and all(
            map(Tensor.is_contiguous, grads)
        )
        if not contiguous or optimizer.has_layouts:
            optimizer.has_layouts = True  # of which state may have kept one
            for p, gradient in pairs:
                lay_out_state(optimizer.state.get(p, {}), p)
                if gradient.stride() != p.stride():
                    replaced.append((p, gradient))
                    p.grad = laid_out_as(gradient, p)
        if isinstance(optimizer, torch.optim.SGD) and group["momentum"]:
            _start_momentum(optimizer, group, params)
    if divisor is not None:
        optimizer.grad_scale = divisor.to(torch.float32)
    try:
        yield
    finally:
        if divisor is not None:
            optimizer.grad_scale = None
        for p, gradient in replaced:
            p.grad = gradient


def _start_momentum(optimizer: Any, group: dict[str, Any], params: Sequence[Tensor]) -> None:
    """Starts the momentum of all parameters from 0, which makes the same first step."""
    if len(optimizer.state) == sum(len(each["params"]) for each in optimizer.param_groups):
        return
    if group["dampening"]:  # whose first step is another one
        group["fused"] = False
        return
    for p in params:
        state = optimizer.state[p]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(p)


def are_exact(group: dict[str, Any], cls: type[Optimizer], is_later: bool) -> bool:
    """Says whether a fused kernel may update a group: it writes between numbers with gaps.

    `is_later` is whether the group was added by hand, where nobody asked for the kernel.
    """
    params = group["params"]
    if any(type(p) in PLAIN and not is_plain(p) for p in params):
        return False
    return not is_later or is_usual(cls, params)


def lay_out_state(state: dict[str, Any], parameter: Tensor) -> None:
    """Lays out state in memory as its parameter."""
    for name, value in state.items():
        is_alike = isinstance(value, Tensor) and value.shape == parameter.shape
        if is_alike and value.stride() != parameter.stride():
            state[name] = laid_out_as(value, parameter)


def laid_out_as(x: Tensor, like: Tensor) -> Tensor:
    """Returns a copy of a tensor that is laid out in memory as another one."""
    return torch.empty_like(like, dtype=x.dtype, device=x.device).copy_(x)
