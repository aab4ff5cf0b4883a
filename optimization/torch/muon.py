"""Muon, with AdamW for what is no matrix."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.torch.base import ForeachOptimizer, decay, number, subtract
from optimization.torch.gradients import norms
from optimization.torch.moments import update_moments


class Muon(ForeachOptimizer):
    """Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982) as Keras has it.

    Matrices of groups with `use_muon`, and with `flatten` kernels of more axes, as matrices of
    (outputs, all else), as the authors have those of convolutions:

        w <- w - lr * weight_decay * w
        m <- mu m + g;  u = m                        (nesterov: g + mu m)
        w <- w - lr * rms_rate * sqrt(max(rows, columns)) * orthogonalized(u)

    Everything else, the same groups' vectors included, has AdamW with the rate
    lr * adam_lr_ratio, but the decay lr * adam_weight_decay, and epsilon as in `AdamW` by default.
    `torch.optim.Muon` takes matrices only, averages its momentum and scales by other rules.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either. A group may set
            `use_muon` to False, for embeddings and the head.
        lr: The learning rate.
        momentum: mu, in [0, 1).
        weight_decay: Of what Muon updates.
        nesterov: See above.
        ns_coefficients: Of the Newton-Schulz iteration.
        ns_steps: How many iterations.
        rms_rate: See above; None for no scaling.
        adam_betas: The decays of AdamW's moments.
        adam_eps: Added to the root of AdamW's second moment.
        adam_lr_ratio: See above.
        adam_weight_decay: See above.
        use_muon: Whether matrices are updated by Muon.
        flatten: Whether what has more than two axes is too.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {
        "muon": ("momentum_buffer",),
        "adam": ("exp_avg", "exp_avg_sq"),
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.004,
        nesterov: bool = True,
        *,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        ns_steps: int = 5,
        rms_rate: float | None = 0.2,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-7,
        adam_lr_ratio: float = 1.0,
        adam_weight_decay: float = 0.004,
        use_muon: bool = True,
        flatten: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "ns_steps": ns_steps,
            "rms_rate": rms_rate,
            "adam_betas": adam_betas,
            "adam_eps": adam_eps,
            "adam_lr_ratio": adam_lr_ratio,
            "adam_weight_decay": adam_weight_decay,
            "use_muon": use_muon,
            "flatten": flatten,
        }
        super().__init__(params, defaults, foreach, maximize)

    def kind_of(self, parameter: Tensor, group: dict[str, Any]) -> str:
        """Returns who updates a parameter."""
        is_matrix = parameter.dim() == 2 or (group["flatten"] and parameter.dim() > 2)
        return "muon" if group["use_muon"] and is_matrix else "adam"

    def _update(self, kind, group, params, grads, steps, *states):
        if kind == "muon":
            self._update_matrices(group, params, grads, *states)
        else:
            self._update_others(group, params, grads, steps, *states)

    def _update_matrices(self, group, params, grads, buffers):
        lr, momentum = number(group["lr"]), group["momentum"]
        decay(params, lr, group["weight_decay"])
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, grads)
        updates = buffers
        if group["nesterov"]:
            updates = torch._foreach_add(grads, buffers, alpha=momentum)
        matrices = [u.flatten(1) for u in updates]
        settings = group["ns_coefficients"], group["ns_steps"]
        updates = [
            orthogonalized(m, *settings).view_as(u) for m, u in zip(matrices, updates, strict=True)
        ]
        scale = group["rms_rate"]
        rates = [lr if scale is None else lr * scale * max(m.shape) ** 0.5 for m in matrices]
        subtract(params, updates, rates)

    def _update_others(self, group, params, grads, steps, moments, squares):
        lr, (beta_1, beta_2) = number(group["lr"]), group["adam_betas"]
        decay(params, lr, group["adam_weight_decay"])
        update_moments(moments, squares, grads, beta_1, beta_2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["adam_eps"])
        rate = lr * group["adam_lr_ratio"]
        rates = [rate * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t) for t in steps]
        subtract(params, torch._foreach_div(moments, roots), rates)


def orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """Returns U V^T, roughly, of a matrix U S V^T, by Newton-Schulz iterations."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    (norm,) = norms([x])
    x = x / (norm.to(x.dtype) + 1e-7)  # so that the spectral norm is at most 1
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
