"""Moments of Adam."""

import torch
from torch import Tensor


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
