"""What the own optimizers share: state in float32 at least, and gradients as dense tensors."""

import math
from typing import Any

import keras
from keras import ops

from optimization.optimizers.gradients import convert, densify, sum_duplicates, tensor_or_slices
from optimization.optimizers.paths import path_of
from optimization.optimizers.texts import optimizer_text

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
    """Returns steps - start, a scalar; it is exact near the start, however late that is.

    Args:
        steps: A count of steps, integers.
        start: From where to count.
        dtype: That of the result.
    """
    steps = ops.convert_to_tensor(steps)
    if keras.backend.standardize_dtype(steps.dtype) == "int32":
        start = min(start, 2**31 - 1)
    return ops.cast(steps - start, dtype)


def bias_correction(decay: Any, steps: Any) -> Any:
    """Returns 1 - decay^steps, exact to the last bits where that is a small difference.

    With decay 0.999 the difference itself would be wrong by 6e-5 of its value at the first step,
    in float32.

    Args:
        decay: A number in [0, 1), or a tensor where it follows a schedule.
        steps: A tensor, the number of steps taken, >= 1.
    """
    if type(decay) is float and decay > 0:  # no subclass, whose value follows a schedule
        return -ops.expm1(steps * math.log(decay))
    return 1 - decay**steps


def root_mean_square(x: Any) -> Any:
    """Returns sqrt(mean(x^2)), a scalar."""
    return ops.sqrt(ops.mean(ops.square(x)))


class Float32Slots:
    """Mixin for a Keras optimizer: its slots hold float32 even where the variable does not."""

    def __repr__(self) -> str:
        return optimizer_text(self)

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> keras.Variable:
        """Adds a slot shaped like the variable, in `compute_dtype` of that variable."""
        return self.add_variable(
            shape=reference_variable.shape,
            initializer=initializer,
            dtype=compute_dtype(reference_variable),
            layout=getattr(reference_variable, "_layout", None),
            name=f"{path_of(reference_variable).replace('/', '_')}_{name or 'var'}",
        )
