"""The stage after the update: what the new weights must be."""

from keras import ops

from optimization.keras.stages.stage import Batch, Rest, Stage


class Constrain(Stage):
    """Applies the constraints of variables; gives low-precision weights their copies' values."""

    title = "constraints of variables"
    sees = "the new weights"
    set_by = "the layer"

    def __call__(self, batch: Batch, rest: Rest) -> None:
        pairs = list(zip(batch.variables, batch.targets, strict=True))
        for variable, target in pairs:
            if variable.constraint is not None:
                target.assign(variable.constraint(target))
        for variable, target in pairs:
            if target is not variable:
                variable.assign(ops.cast(target, variable.dtype))
        rest(batch)
