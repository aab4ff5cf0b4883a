"""The functions that formulas compute with on Keras: `keras.ops`."""

from typing import Any

import keras
import numpy as np
from keras import ops

from optimization.keras.norms import norm, sum_of_squares
from optimization.rules.arrays import Arrays


class KerasArrays(Arrays):
    """Arrays of the backend of Keras."""

    def __init__(self) -> None:
        super().__init__(ops)

    def rsqrt(self, x: Any) -> Any:
        return ops.rsqrt(x)

    def steps_since(self, count: Any, start: int, like: Any) -> Any:
        return steps_since(count, start, keras.backend.standardize_dtype(like.dtype))

    def resolution(self, x: Any) -> float:
        return float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)

    def norm(self, x: Any, wide: bool = False) -> Any:
        return norm(x).value if wide else ops.sqrt(sum_of_squares(x))


def steps_since(steps: Any, start: int, dtype: str = "float32") -> Any:
    """Returns steps - start, a scalar; it is exact near the start, however late that is."""
    steps = ops.convert_to_tensor(steps)
    if keras.backend.standardize_dtype(steps.dtype) == "int32":
        start = min(start, 2**31 - 1)
    return ops.cast(steps - start, dtype)


FUNCTIONS = KerasArrays()
