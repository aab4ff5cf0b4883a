"""Optimizers whose steps `torch.compile` compiles."""

import types
from typing import Any

import torch
from torch import Tensor

from optimization.torch.lists import number

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
