"""The stage that gives gradients the form in which updates take them."""

from optimization.keras.slots import for_update
from optimization.keras.stages.stage import Batch, Rest, Stage


class SumDuplicates(Stage):
    """Sums the rows of a sparse gradient that share an index; makes gradients float32 at least."""

    title = "sum of repeated indices of sparse gradients"
    sees = "the gradient of the global batch"

    def __call__(self, batch: Batch, rest: Rest) -> None:
        """Sums."""
        rest(batch.mapped(for_update))
