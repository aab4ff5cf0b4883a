"""The functions that formulas compute with on Keras: `keras.ops`."""

from typing import Any

from keras import ops

from optimization.optimizers.norms import norm, sum_of_squares
from optimization.rules.arrays import Arrays


class KerasArrays(Arrays):
    """Arrays of the backend of Keras."""

    def __init__(self) -> None:
        super().__init__(ops)

    def rsqrt(self, x: Any) -> Any:
        """Returns 1 / sqrt(x)."""
        return ops.rsqrt(x)

    def norm(self, x: Any, wide: bool = False) -> Any:
        """Returns the L2 norm, a scalar; see `Arrays.norm`."""
        return norm(x).value if wide else ops.sqrt(sum_of_squares(x))


FUNCTIONS = KerasArrays()
