"""`AdamW` of transformers up to 4.49, for PyTorch."""

from typing import Any

from torch import Tensor

from optimization.torch import AdamW as _AdamW


class AdamW(_AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101).

    As in transformers up to 4.49: epsilon is added before the bias correction, and weights decay
    after the step. It is `optimization.torch.AdamW` with `weight_decay_order="after"`, and updates
    all parameters at once. It loads the state of transformers' class.

    >>> weight = torch.nn.Parameter(torch.ones(3, 2))
    >>> optimizer = AdamW([weight], lr=0.5, weight_decay=0.1)

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate, >= 0.
        betas: The decays of the two moments, in [0, 1).
        eps: Added to the root of the second moment, > 0.
        weight_decay: After each step, w -= lr * weight_decay * w; >= 0.
        correct_bias: Whether the moments are corrected for their start from zero; BERT was trained
            without.
        no_deprecation_warning: Taken for code that passes it: there is no warning to turn off.

    Raises:
        ValueError: For a value out of its range.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        no_deprecation_warning: bool = False,
    ):
        del no_deprecation_warning
        forms: dict[str, Any] = {"correct_bias": correct_bias, "weight_decay_order": "after"}
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay, **forms)
