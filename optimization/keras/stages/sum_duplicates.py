"""The stage that gives gradients the form in which updates take them."""

from typing import Any

import keras

from optimization.keras.gradients import compute_dtype, convert, sum_duplicates, tensor_or_slices
from optimization.keras.stages.stage import Batch, Rest, Stage


class SumDuplicates(Stage):
    """Sums the rows of a sparse gradient that share an index; makes gradients float32 at least."""

    title = "sum of repeated indices of sparse gradients"
    sees = "the gradient of the global batch"

    def __call__(self, batch: Batch, rest: Rest) -> None:
        def summed(gradient: Any, variable: Any) -> Any:
            dtype = compute_dtype(variable)
            if keras.backend.standardize_dtype(gradient.dtype) != dtype:
                gradient = convert(gradient, dtype)
            return sum_duplicates(tensor_or_slices(gradient))

        rest(batch.mapped(summed))
