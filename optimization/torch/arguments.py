"""Arguments of optimizers that are numbers, or several of them."""

import numbers
from typing import Any

import numpy as np
from torch import Tensor

_FLOAT32_END = 2.0**128  # what float32 holds is below


def check_rate(rate: Any, divides: bool) -> None:
    """Raises a `ValueError` for what is no learning rate; 0 is none if it is divided by."""
    least = "> 0" if divides else ">= 0"
    value = one_number("lr", rate)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not (value > 0 if divides else value >= 0) or not value < _FLOAT32_END:
        message = f"Argument `lr` must be a number {least} and finite in float32"
        raise ValueError(f"{message}, received: lr={rate!r}")


def several(key: str, value: Any, count: int) -> list[Any]:
    """Returns the values of an argument that takes several."""
    try:
        values = list(value)
    except TypeError:  # a number, or a tensor of one
        values = []
    if len(values) != count:
        needed = "two numbers" if count == 2 else f"{count} numbers"
        raise ValueError(f"Argument `{key}` must be {needed}, received: {key}={value}")
    return values


def one_number(key: str, value: Any) -> Any:
    """Returns what a tensor or an array of one number holds, and anything else as it is."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        if (value.numel() if isinstance(value, Tensor) else value.size) != 1:
            raise ValueError(f"Argument `{key}` must be a number, received: {key}={value}")
        return value.item()
    return value
