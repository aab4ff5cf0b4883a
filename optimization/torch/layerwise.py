"""LAMB and LARS: each layer's step in proportion to the norm of its weights."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.torch.adam import update_moments
from optimization.torch.base import ForeachOptimizer, decay, number, subtract
from optimization.torch.gradients import norms


class LAMB(ForeachOptimizer):
    """LAMB (You et al. 2020, arXiv:1904.00962).

    With m^ and v^ the corrected moments of the gradient:

        u = m^ / (sqrt(v^) + eps) + weight_decay * w
        w <- w - lr * |w| / |u| * u                  (ratio 1 where a norm is 0)

    As in the paper's algorithm, without bounds on the ratio (timm has a bound, and clips gradients
    by itself).

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either. A group may set
            `weight_decay` to 0, and `adapt` to False for a ratio of 1, for biases and norms.
        lr: The learning rate.
        betas: The decays of the two moments, in [0, 1).
        eps: Added to the root of the corrected second moment.
        weight_decay: The decay inside u.
        adapt: Whether steps are scaled layer by layer.
        decoupled_weight_decay: Before each update, w <- w - lr * decoupled_weight_decay * w.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("exp_avg", "exp_avg_sq")}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        adapt: bool = True,
        decoupled_weight_decay: float = 0.0,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "adapt": adapt,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, foreach, maximize)

    def _update(self, kind, group, params, grads, steps, moments, squares):
        lr, (beta_1, beta_2) = number(group["lr"]), group["betas"]
        decay(params, lr, group["decoupled_weight_decay"])
        update_moments(moments, squares, grads, beta_1, beta_2)
        roots = torch._foreach_div(squares, [1 - beta_2**t for t in steps])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(moments, [1 - beta_1**t for t in steps])
        torch._foreach_div_(updates, roots)
        _add_decay(updates, params, group["weight_decay"])
        if group["adapt"]:
            torch._foreach_mul_(updates, trust_ratios(params, updates))
        subtract(params, updates, lr)


class LARS(ForeachOptimizer):
    """LARS (You et al. 2017, arXiv:1708.03888).

    With g <- g + weight_decay * w, mu the momentum and ratio(x) = trust_coefficient * |w| / |x|
    (1 where a norm is 0), classic momentum is

        v <- mu * v + lr * ratio(g) * g
        w <- w - v                                   (nesterov: mu * v + lr * ratio(g) * g)

    and the popular form (`classic_momentum=False`) keeps the rate out of the buffer:

        v <- mu * v + g
        u = v                                        (nesterov: mu * v + g)
        w <- w - lr * ratio(u) * u

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either. A group may set
            `weight_decay` to 0, and `adapt` to False for a ratio of 1, for biases and norms.
        lr: The learning rate.
        momentum: mu, in [0, 1).
        weight_decay: The decay in the gradient.
        nesterov: Look one momentum step ahead; needs a momentum > 0.
        trust_coefficient: The paper's eta.
        classic_momentum: Apply the rate before (True) or after (False) the momentum.
        adapt: Whether steps are scaled layer by layer.
        decoupled_weight_decay: Before each update, w <- w - lr * decoupled_weight_decay * w.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range, or nesterov without momentum.
    """

    state_names: ClassVar = {"all": ("momentum_buffer",)}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        trust_coefficient: float = 0.001,
        classic_momentum: bool = True,
        adapt: bool = True,
        decoupled_weight_decay: float = 0.0,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "trust_coefficient": trust_coefficient,
            "classic_momentum": classic_momentum,
            "adapt": adapt,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, foreach, maximize)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Checks the hyperparameters of a group."""
        super().check_group(group)
        if group["nesterov"] and not group["momentum"]:
            raise ValueError("Argument `nesterov` needs a momentum > 0, received: momentum=0")

    def _update(self, kind, group, params, grads, steps, buffers):
        lr = number(group["lr"])
        decay(params, lr, group["decoupled_weight_decay"])
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
        if group["classic_momentum"]:
            updates = torch._foreach_mul(grads, lr)
            if group["adapt"]:
                torch._foreach_mul_(updates, self._ratios(group, params, grads))
            torch._foreach_sub_(params, accumulated(group, buffers, updates))
            return
        updates = accumulated(group, buffers, grads)
        scaled = torch._foreach_mul(updates, lr)
        if group["adapt"]:
            torch._foreach_mul_(scaled, self._ratios(group, params, updates))
        torch._foreach_sub_(params, scaled)

    def _ratios(self, group, params, updates):
        return trust_ratios(params, updates, group["trust_coefficient"])


def trust_ratios(
    params: list[Tensor], updates: list[Tensor], coefficient: float = 1.0
) -> list[Tensor]:
    """Returns coefficient * |weight| / |update| (L2 norms) of each, or 1 where a norm is 0."""
    weight_norms, update_norms = torch.stack(norms(params)), torch.stack(norms(updates))
    ratios = coefficient * weight_norms / update_norms
    defined = (weight_norms > 0) & (update_norms > 0)
    return list(torch.where(defined, ratios, 1.0).to(updates[0].dtype).unbind())


def accumulated(group: dict[str, Any], buffers: list[Tensor], values: list[Tensor]) -> list[Tensor]:
    """Adds values to their momentum buffers; returns these, or with nesterov what is ahead."""
    torch._foreach_mul_(buffers, group["momentum"])
    torch._foreach_add_(buffers, values)
    if not group["nesterov"]:
        return buffers
    return torch._foreach_add(values, buffers, alpha=group["momentum"])


def _add_decay(updates: list[Tensor], params: list[Tensor], weight_decay: float) -> None:
    if weight_decay:
        torch._foreach_add_(updates, params, alpha=weight_decay)
