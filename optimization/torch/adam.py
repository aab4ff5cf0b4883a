"""Adam and AdamW, in each of the forms that their implementations have."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from optimization.torch.base import ForeachOptimizer, decay, number, subtract

_CHOICES = {
    "epsilon_placement": ("uncorrected", "corrected"),
    "weight_decay_order": ("before", "after"),
}


class AdamW(ForeachOptimizer):
    """Adam with decoupled weight decay, where torch has only one of its forms.

    With t the updates of a parameter, g its gradient, c1 = 1 - beta_1^t and c2 = 1 - beta_2^t:

        w <- w - lr * weight_decay * w                           weight_decay_order "before"
        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + eps)        epsilon_placement "uncorrected"
        w <- w - lr * (m / c1) / (sqrt(v / c2) + eps)            epsilon_placement "corrected"
        w <- w - lr * weight_decay * w                           weight_decay_order "after"

    "uncorrected" is the form of Keras, TensorFlow and transformers; "corrected", with decay
    "before", is that of `torch.optim.AdamW`, which is the better choice there. Without bias
    correction c1 = c2 = 1, as BERT was trained. The decay "after" is that of the AdamW of
    transformers up to 4.49.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate.
        betas: The decays of the two moments, in [0, 1).
        eps: Added to the root of the second moment, > 0.
        weight_decay: See above.
        amsgrad: Use the largest v so far (Reddi et al. 2018).
        correct_bias: Whether the moments are corrected for their start from zero.
        epsilon_placement: "uncorrected" or "corrected".
        weight_decay_order: "before" or "after".
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range, or "corrected" where nothing is corrected.
    """

    state_names: ClassVar = {
        "plain": ("exp_avg", "exp_avg_sq"),
        "amsgrad": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        correct_bias: bool = True,
        epsilon_placement: Literal["uncorrected", "corrected"] = "uncorrected",
        weight_decay_order: Literal["before", "after"] = "before",
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "correct_bias": correct_bias,
            "epsilon_placement": epsilon_placement,
            "weight_decay_order": weight_decay_order,
        }
        super().__init__(params, defaults, foreach, maximize)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Checks the hyperparameters of a group."""
        super().check_group(group)
        for name, allowed in _CHOICES.items():
            if group[name] not in allowed:
                raise ValueError(
                    f"Argument `{name}` must be one of {allowed}, received: {name}={group[name]!r}"
                )
        if group["epsilon_placement"] == "corrected" and not group["correct_bias"]:
            raise ValueError(
                "Argument `epsilon_placement` must be 'uncorrected' where `correct_bias` is False."
            )

    def kind_of(self, parameter: Tensor, group: dict[str, Any]) -> str:
        """Returns whether a parameter keeps the largest second moment."""
        return "amsgrad" if group["amsgrad"] else "plain"

    def _update(self, kind, group, params, grads, steps, *states):
        lr, (beta_1, beta_2) = number(group["lr"]), group["betas"]
        after = group["weight_decay_order"] == "after"
        if not after:
            decay(params, lr, group["weight_decay"])
        moments, squares = states[:2]
        update_moments(moments, squares, grads, beta_1, beta_2)
        if kind == "amsgrad":
            torch._foreach_maximum_(states[2], squares)
            squares = states[2]
        roots = torch._foreach_sqrt(squares)
        rates, epsilons = [lr] * len(steps), [group["eps"]] * len(steps)
        if group["correct_bias"]:
            corrections = [(1 - beta_2**t) ** 0.5 for t in steps]
            rates = [lr * c / (1 - beta_1**t) for c, t in zip(corrections, steps, strict=True)]
            if group["epsilon_placement"] == "corrected":
                epsilons = [group["eps"] * c for c in corrections]
        torch._foreach_add_(roots, epsilons)
        subtract(params, torch._foreach_div(moments, roots), rates)
        if after:
            decay(params, lr, group["weight_decay"])


def update_moments(
    moments: list[Tensor],
    squares: list[Tensor],
    grads: list[Tensor],
    beta_1: float,
    beta_2: float,
) -> None:
    """Moves averages of the gradients and of their squares, in place."""
    torch._foreach_lerp_(moments, grads, 1 - beta_1)
    torch._foreach_mul_(squares, beta_2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta_2)
