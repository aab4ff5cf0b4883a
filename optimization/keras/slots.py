"""The dtype of state and updates, float32 at least, and gradients as updates take them."""

from typing import Any

import keras
from keras import ops

from optimization.keras.gradients import convert, densify, sum_duplicates, tensor_or_slices

_LOW_PRECISION = ("float16", "bfloat16")


def compute_dtype(variable: Any) -> str:
    """Returns the dtype to compute an update in: the variable's own, float32 at least.

    In bfloat16 `1 - beta_2` and small steps round to nothing, so nothing would be learned.
    """
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "float32" if dtype in _LOW_PRECISION else dtype


def for_update(gradient: Any, variable: Any) -> Any:
    """Returns a gradient as an update of a variable takes it: in `compute_dtype` of that variable.

    Of a sparse one repeated indices are summed. It stays sparse if it is `tf.IndexedSlices`.
    """
    dtype = compute_dtype(variable)
    if keras.backend.standardize_dtype(gradient.dtype) != dtype:
        gradient = convert(gradient, dtype)
    return sum_duplicates(tensor_or_slices(gradient))


def as_dense(gradient: Any, dtype: str) -> Any:
    """Returns a gradient as a dense tensor of `dtype`; repeated sparse indices are summed."""
    return ops.cast(densify(gradient), dtype)


def steps_since(steps: Any, start: int, dtype: str = "float32") -> Any:
    """Returns steps - start, a scalar; it is exact near the start, however late that is."""
    steps = ops.convert_to_tensor(steps)
    if keras.backend.standardize_dtype(steps.dtype) == "int32":
        start = min(start, 2**31 - 1)
    return ops.cast(steps - start, dtype)
