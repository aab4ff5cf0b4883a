"""The variants of Adafactor that are in use, as values of its switches.

Each row was read from the code that it names, which is what its defaults are:

    paper       Shazeer and Stern 2018 (arXiv:1804.04235), algorithms 4 to 6 and section 9
    hf          transformers 5.23, `transformers.optimization.Adafactor`
    torch       torch 2.13, `torch.optim.Adafactor`
    keras       Keras 3.15, `keras.optimizers.Adafactor`
    optax       optax 0.2.8, `optax.adafactor`
    t5x         T5X and Flax, `adafactor.Adafactor`; Model Garden announces its hyperparameters
    timm        timm 1.0, `timm.optim.Adafactor`
    big_vision  Big Vision (Zhai et al. 2021, arXiv:2106.04560), `scale_by_adafactor`; also
                `timm.optim.AdafactorBigVision`, which factors from 16 on and has a low-precision
                momentum
"""

import functools
from collections.abc import Mapping
from typing import Any

_COMMON: dict[str, Any] = {
    "factored": True,
    "multiply_by_parameter_scale": True,
    "beta1": None,
    "decay_rate": 0.8,
    "step_offset": 0,
    "clipping_threshold": 1.0,
    "min_dim_size_to_factor": 1,
    "epsilon1": 1e-30,
    "epsilon2": 1e-3,
    "weight_decay": None,
    "include_in_weight_decay": None,
    "step_size": "relative",
    "warmup_init": False,
    "epsilon1_mode": "added",
    "factored_axes": "last_two",
    "beta_2_cap": None,
    "momentum_of": "scaled_update",
    "weight_decay_kind": "plain",
    "weight_decay_first": False,
    "step_count": "global",
}
_T5X = {"step_size": "absolute", "factored_axes": "two_largest", "min_dim_size_to_factor": 128}

_DIFFERENCES: dict[str, dict[str, Any]] = {
    "paper": {},
    "hf": {"weight_decay_kind": "step_size", "step_count": "per_parameter"},
    "torch": {
        "step_size": "capped",
        "epsilon1": None,
        "epsilon1_mode": "clamp",
        "weight_decay_kind": "learning_rate",
        "step_count": "per_parameter",
    },
    "keras": {
        "step_size": "capped",
        "weight_decay_kind": "learning_rate",
        "weight_decay_first": True,
    },
    "optax": _T5X,
    "t5x": _T5X,
    "timm": {
        "factored_axes": "timm",
        "min_dim_size_to_factor": 16,
        "weight_decay_kind": "step_size",
        "step_count": "per_parameter",
    },
    "big_vision": {
        "step_size": "absolute",
        "multiply_by_parameter_scale": False,
        "factored_axes": "two_largest",
        "min_dim_size_to_factor": 32,
        "beta1": 0.9,
        "momentum_of": "update",
        "beta_2_cap": 0.999,
        "clipping_threshold": None,
        "weight_decay_kind": "learning_rate",
    },
}

VARIANTS = {name: {**_COMMON, **differences} for name, differences in _DIFFERENCES.items()}
"""Variant -> the value of each of Adafactor's switches."""


def preset(variant: str, written: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the switches of a variant, given what is `written` together with it."""
    values = dict(VARIANTS[variant])
    # It scales by the parameters only a rate that is relative.
    if variant == "timm" and (written or {}).get("step_size", "relative") != "relative":
        values["multiply_by_parameter_scale"] = False
    return values


@functools.cache
def axes_to_factor(
    shape: tuple[int, ...], factored_axes: str, min_dim_size_to_factor: int
) -> tuple[int, int] | None:
    """Returns which two axes of a tensor are factored, (d0, d1); None for none.

    The row means are those over d0, the column means those over d1. Among axes of equal size the
    last counts as the larger, as in Flax and optax. `timm` takes the first two of more than two if
    both are larger than the least size, as PyTorch's convolutions have their channels there, else
    the last.
    """
    last = len(shape) - 1
    if last < 1:
        return None
    if factored_axes == "timm":
        pairs = [(1, 0), (last, last - 1)] if last > 1 else [(1, 0)]
        large = [pair for pair in pairs if min(shape[d] for d in pair) > min_dim_size_to_factor]
        return large[0] if large else None
    d0, d1 = last, last - 1
    if factored_axes == "two_largest":
        *_, d1, d0 = sorted(range(len(shape)), key=shape.__getitem__)
    return (d0, d1) if min(shape[d0], shape[d1]) >= min_dim_size_to_factor else None
