"""Lion."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.torch.base import ForeachOptimizer, decay, number, subtract


class Lion(ForeachOptimizer):
    """Lion (Chen et al. 2023, arXiv:2302.06675).

        w <- w - lr * weight_decay * w
        w <- w - lr * sign(beta_1 m + (1 - beta_1) g)
        m <- beta_2 m + (1 - beta_2) g

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate.
        betas: The share of the momentum in the step, and its decay, in [0, 1).
        weight_decay: See above.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("exp_avg",)}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, defaults, foreach, maximize)

    def _update(self, kind, group, params, grads, steps, moments):
        lr, (beta_1, beta_2) = number(group["lr"]), group["betas"]
        decay(params, lr, group["weight_decay"])
        updates = torch._foreach_lerp(moments, grads, 1 - beta_1)
        torch._foreach_sign_(updates)
        subtract(params, updates, lr)
        torch._foreach_lerp_(moments, grads, 1 - beta_2)
