"""The stage for what comes as a gradient and is none."""

from optimization.keras.gradients import bare, is_overwritten
from optimization.keras.stages.stage import Batch, Rest, Stage


class Overwrite(Stage):
    """Assigns what is no gradient but a new value, as float8 layers compute for their scales.

    These variables take no further part.
    """

    title = "assign new values that come in place of gradients"
    sees = "as they come in"
    set_by = "the layer (float8)"

    def __call__(self, batch: Batch, rest: Rest) -> None:
        others = []
        for gradient, variable in batch.pairs:
            if is_overwritten(variable):
                variable.assign(bare(gradient))
            else:
                others.append((gradient, variable))
        rest(batch.with_pairs(others))
