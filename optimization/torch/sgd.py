"""Stochastic gradient descent, with the learning rate inside or outside the momentum."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.torch.base import ForeachOptimizer, decay, number
from optimization.torch.layerwise import accumulated


class SGD(ForeachOptimizer):
    """SGD in the forms that `torch.optim.SGD` does not have.

        w <- w - lr * weight_decay * w               decoupled_weight_decay
        g <- g + weight_decay * w                    otherwise
        v <- mu * v + lr * g;  w <- w - v            classic_momentum, as in Keras
        v <- mu * v + g;  w <- w - lr * v            otherwise, as in torch

    They differ where the rate changes. With nesterov, mu * v plus what was added to v takes the
    place of v in the step.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate.
        momentum: mu, in [0, 1). It may change while training, also from 0.
        weight_decay: See above.
        nesterov: Look one momentum step ahead.
        decoupled_weight_decay: Whether weights decay apart from their gradients.
        classic_momentum: Whether the rate is applied before the momentum.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("momentum_buffer",)}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        decoupled_weight_decay: bool = True,
        classic_momentum: bool = True,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "decoupled_weight_decay": decoupled_weight_decay,
            "classic_momentum": classic_momentum,
        }
        super().__init__(params, defaults, foreach, maximize)

    def _update(self, kind, group, params, grads, steps, buffers):
        lr = number(group["lr"])
        if group["decoupled_weight_decay"]:
            decay(params, lr, group["weight_decay"])
        elif group["weight_decay"]:
            grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
        if group["classic_momentum"]:
            updates = accumulated(group, buffers, torch._foreach_mul(grads, lr))
        else:
            updates = torch._foreach_mul(accumulated(group, buffers, grads), lr)
        torch._foreach_sub_(params, updates)
