"""The functions that formulas compute with on Keras: `keras.ops`."""

from typing import Any

import keras
import numpy as np
from keras import ops

from optimization.keras.norms import norm, sum_of_squares
from optimization.keras.slots import steps_since
from optimization.rules.arrays import Arrays


class KerasArrays(Arrays):
    """Arrays of the backend of Keras."""

    def __init__(self) -> None:
        super().__init__(ops)

    def rsqrt(self, x: Any) -> Any:
        """Returns 1 / sqrt(x)."""
        return ops.rsqrt(x)

    def steps_since(self, count: Any, start: int, like: Any) -> Any:
        """Returns count - start; see `Arrays.steps_since`."""
        return steps_since(count, start, keras.backend.standardize_dtype(like.dtype))

    def resolution(self, x: Any) -> float:
        """Returns the distance from 1 to the next number of the dtype of x."""
        return float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)

    def norm(self, x: Any, wide: bool = False) -> Any:
        """Returns the L2 norm, a scalar; see `Arrays.norm`."""
        return norm(x).value if wide else ops.sqrt(sum_of_squares(x))


FUNCTIONS = KerasArrays()
