"""RMSprop, Adagrad, Adadelta and Adamax in the forms that torch's own classes do not have."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.torch.base import (
    ForeachOptimizer,
    decay,
    number,
    subtract,
    zeros_like,
)


class RMSprop(ForeachOptimizer):
    """RMSprop (Tieleman and Hinton 2012), with epsilon inside or outside the root.

        w <- w - lr * weight_decay * w
        v <- alpha v + (1 - alpha) g^2;  a <- alpha a + (1 - alpha) g     centered: V = v - a^2
        r = sqrt(V + eps)                       epsilon_in_sqrt, as in Keras
        r = sqrt(V) + eps                       otherwise, as in torch
        b <- mu b + lr * g / r;  w <- w - b     classic_momentum, as in Keras
        b <- mu b + g / r;  w <- w - lr * b     otherwise, as in torch

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate.
        alpha: The decay of the averages, in [0, 1).
        eps: See above.
        weight_decay: Apart from the gradient, where torch's adds it to the gradient.
        momentum: mu, in [0, 1).
        centered: Whether the gradient's variance takes the place of its square.
        epsilon_in_sqrt: See above.
        classic_momentum: See above.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {
        "plain": ("square_avg",),
        "centered": ("square_avg", "grad_avg"),
        "momentum": ("square_avg", "momentum_buffer"),
        "centered, momentum": ("square_avg", "grad_avg", "momentum_buffer"),
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        epsilon_in_sqrt: bool = True,
        classic_momentum: bool = True,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "epsilon_in_sqrt": epsilon_in_sqrt,
            "classic_momentum": classic_momentum,
        }
        super().__init__(params, defaults, foreach, maximize)

    def kind_of(self, parameter: Tensor, group: dict[str, Any]) -> str:
        """Returns what the settings of a parameter's group need."""
        # A momentum that a schedule has at 0 for now needs its buffer then, too.
        momentum = group["momentum"] > 0 or self.defaults["momentum"] > 0
        needed = {"centered": group["centered"], "momentum": momentum}
        return ", ".join(name for name, needs in needed.items() if needs) or "plain"

    def _update(self, kind, group, params, grads, steps, squares, *others):
        lr, alpha = number(group["lr"]), group["alpha"]
        decay(params, lr, group["weight_decay"])
        torch._foreach_mul_(squares, alpha)
        torch._foreach_addcmul_(squares, grads, grads, 1 - alpha)
        variances = squares
        if "centered" in kind:
            torch._foreach_lerp_(others[0], grads, 1 - alpha)
            variances = torch._foreach_addcmul(squares, others[0], others[0], -1)
        updates = torch._foreach_div(grads, _roots(group, variances))
        if "momentum" not in kind:
            subtract(params, updates, lr)
            return
        buffers = others[-1]
        torch._foreach_mul_(buffers, group["momentum"])
        if group["classic_momentum"]:
            torch._foreach_add_(buffers, torch._foreach_mul(updates, lr))
            torch._foreach_sub_(params, buffers)
        else:
            torch._foreach_add_(buffers, updates)
            torch._foreach_sub_(params, torch._foreach_mul(buffers, lr))


class Adagrad(ForeachOptimizer):
    """Adagrad (Duchi et al. 2011), with epsilon inside or outside the root.

        w <- w - lr * weight_decay * w
        s <- s + g^2
        w <- w - lr * g / sqrt(s + eps)         epsilon_in_sqrt, as in Keras
        w <- w - lr * g / (sqrt(s) + eps)       otherwise, as in torch

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate.
        weight_decay: Apart from the gradient, where torch's adds it to the gradient.
        initial_accumulator_value: What s starts from, >= 0.
        eps: See above.
        epsilon_in_sqrt: See above.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("sum",)}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        epsilon_in_sqrt: bool = True,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "epsilon_in_sqrt": epsilon_in_sqrt,
        }
        super().__init__(params, defaults, foreach, maximize)

    def initial_state(self, parameter, kind, group):
        """Returns sums that start from the initial value."""
        return {"sum": zeros_like(parameter).fill_(group["initial_accumulator_value"])}

    def _update(self, kind, group, params, grads, steps, sums):
        lr = number(group["lr"])
        decay(params, lr, group["weight_decay"])
        torch._foreach_addcmul_(sums, grads, grads, 1)
        subtract(params, torch._foreach_div(grads, _roots(group, sums)), lr)


class Adadelta(ForeachOptimizer):
    """Adadelta (Zeiler 2012, arXiv:1212.5701) with decoupled weight decay.

        w <- w - lr * weight_decay * w
        v <- rho v + (1 - rho) g^2
        d = sqrt(D + eps) / sqrt(v + eps) * g;  D <- rho D + (1 - rho) d^2
        w <- w - lr * d

    Without decay it is `torch.optim.Adadelta`, which adds the decay to the gradient.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate.
        rho: The decay of the averages, in [0, 1).
        eps: See above.
        weight_decay: See above.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("square_avg", "acc_delta")}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, foreach, maximize)

    def _update(self, kind, group, params, grads, steps, squares, deltas):
        lr, rho = number(group["lr"]), group["rho"]
        decay(params, lr, group["weight_decay"])
        torch._foreach_mul_(squares, rho)
        torch._foreach_addcmul_(squares, grads, grads, 1 - rho)
        updates = torch._foreach_add(deltas, group["eps"])
        torch._foreach_sqrt_(updates)
        denominators = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(denominators)
        torch._foreach_div_(updates, denominators)
        torch._foreach_mul_(updates, grads)
        torch._foreach_mul_(deltas, rho)
        torch._foreach_addcmul_(deltas, updates, updates, 1 - rho)
        subtract(params, updates, lr)


class Adamax(ForeachOptimizer):
    """Adamax (Kingma and Ba 2015) with epsilon where Keras adds it.

        w <- w - lr * weight_decay * w
        m <- beta_1 m + (1 - beta_1) g
        u <- max(beta_2 u, |g|)
        w <- w - lr / (1 - beta_1^t) * m / (u + eps)

    `torch.optim.Adamax` has u <- max(beta_2 u, |g| + eps), and no eps later; so has this with
    `epsilon_in_norm`.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate.
        betas: The decays of the two averages, in [0, 1).
        eps: See above.
        weight_decay: Apart from the gradient, where torch's adds it to the gradient.
        epsilon_in_norm: See above.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("exp_avg", "exp_inf")}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        epsilon_in_norm: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "epsilon_in_norm": epsilon_in_norm,
        }
        super().__init__(params, defaults, foreach, maximize)

    def _update(self, kind, group, params, grads, steps, moments, largest):
        lr, (beta_1, beta_2) = number(group["lr"]), group["betas"]
        decay(params, lr, group["weight_decay"])
        torch._foreach_lerp_(moments, grads, 1 - beta_1)
        sizes = torch._foreach_abs(grads)
        if group["epsilon_in_norm"]:
            torch._foreach_add_(sizes, group["eps"])
        torch._foreach_mul_(largest, beta_2)
        torch._foreach_maximum_(largest, sizes)
        denominators = largest
        if not group["epsilon_in_norm"]:
            denominators = torch._foreach_add(largest, group["eps"])
        updates = torch._foreach_div(moments, denominators)
        subtract(params, updates, [lr / (1 - beta_1**t) for t in steps])


def _roots(group: dict[str, Any], squares: list[Tensor]) -> list[Tensor]:
    """Returns the roots of averages, with epsilon inside or outside."""
    if group["epsilon_in_sqrt"]:
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
    else:
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
    return roots
