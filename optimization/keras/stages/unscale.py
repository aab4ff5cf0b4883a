"""The stage that undoes a static loss scale."""

from optimization.keras import gradients
from optimization.keras.stages.stage import Batch, Rest, Stage, argument


class Unscale(Stage):
    """Divides gradients by the factor that the loss was multiplied by."""

    title = "undo a static loss scale"
    sees = "the same, scaled"
    set_by = "`runtime.loss_scale`, `loss_scale_factor`"

    loss_scale_factor: float | None = argument(
        None, "Static loss scale: `scale_loss` multiplies, a step divides."
    )

    def __post_init__(self) -> None:
        self.require_positive("loss_scale_factor")

    def __call__(self, batch: Batch, rest: Rest) -> None:
        # From here on factors wait for the update, where it can multiply by them.
        batch = batch.with_pairs(batch.updates.postponed(batch.pairs))
        if self.loss_scale_factor is not None:
            factor = 1 / self.loss_scale_factor
            batch = batch.mapped(lambda gradient, variable: gradients.scale(gradient, factor))
        rest(batch)
