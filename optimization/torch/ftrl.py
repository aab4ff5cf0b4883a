"""FTRL-proximal."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.torch.base import ForeachOptimizer, decay, number, zeros_like


class Ftrl(ForeachOptimizer):
    """FTRL-proximal (McMahan et al. 2013), for sparse linear models.

    With p = -lr_power, L = l2 + beta / (2 lr) and the sums n and z of a parameter:

        w <- w - lr * weight_decay * w
        z <- z + g + 2 l2_shrinkage w - ((n + g^2)^p - n^p) / lr * w
        n <- n + g^2
        w <- (clip(z, -l1, l1) - z) / (n^p / lr + 2 L)

    As in TensorFlow and Keras. The rate divides: it must never be 0.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate, > 0.
        lr_power: How steps fall with the sum of squares, < 0.
        initial_accumulator_value: What n starts from, >= 0.
        l1: The strength of the L1 regularization, which makes weights 0.
        l2: The strength of the L2 regularization.
        l2_shrinkage: The strength of an L2 regularization in the gradient.
        beta: See above.
        weight_decay: See above.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("accumulator", "linear")}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        lr_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1: float = 0.0,
        l2: float = 0.0,
        l2_shrinkage: float = 0.0,
        beta: float = 0.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "lr_power": lr_power,
            "initial_accumulator_value": initial_accumulator_value,
            "l1": l1,
            "l2": l2,
            "l2_shrinkage": l2_shrinkage,
            "beta": beta,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, foreach, maximize)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Checks the hyperparameters of a group."""
        lr, lr_power = group["lr"], group["lr_power"]
        if not lr > 0:
            raise ValueError(f"Argument `lr` must be > 0, received: lr={lr}")
        if not lr_power < 0:
            raise ValueError(f"Argument `lr_power` must be < 0, received: lr_power={lr_power}")
        super().check_group(group)

    def initial_state(
        self, parameter: Tensor, kind: str, group: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Returns the sums: of squares from the initial value, of the rest from 0."""
        start = group["initial_accumulator_value"]
        return {
            "accumulator": zeros_like(parameter).fill_(start),
            "linear": zeros_like(parameter),
        }

    def _update(self, kind, group, params, grads, steps, accumulators, linears):
        lr, power = number(group["lr"]), -group["lr_power"]
        decay(params, lr, group["weight_decay"])
        before = torch._foreach_pow(accumulators, power)
        torch._foreach_addcmul_(accumulators, grads, grads, 1)
        quadratics = torch._foreach_pow(accumulators, power)
        torch._foreach_sub_(before, quadratics)
        torch._foreach_div_(before, lr)
        torch._foreach_mul_(before, params)
        torch._foreach_add_(linears, grads)
        torch._foreach_add_(linears, params, alpha=2 * group["l2_shrinkage"])
        torch._foreach_add_(linears, before)
        torch._foreach_div_(quadratics, lr)
        torch._foreach_add_(quadratics, 2 * group["l2"] + group["beta"] / lr)
        clipped = torch._foreach_clamp_min(linears, -group["l1"])
        torch._foreach_clamp_max_(clipped, group["l1"])
        torch._foreach_sub_(clipped, linears)
        torch._foreach_copy_(params, torch._foreach_div(clipped, quadratics))
