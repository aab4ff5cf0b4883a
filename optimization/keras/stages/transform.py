"""The stage of a user's own functions of gradients."""

from collections.abc import Sequence

import keras

from optimization.configs import printing
from optimization.keras.compiling import translated
from optimization.keras.gradients import bare
from optimization.keras.stages.reduce import GradientFunction
from optimization.keras.stages.stage import Batch, Rest, Stage, argument


class Transform(Stage):
    """Calls the gradient transformers, one after the other."""

    title = "transformers"
    sees = "clipped by that"
    set_by = "`build_optimizer(gradient_transformers=...)`"

    gradient_transformers: Sequence[GradientFunction] | None = argument(
        None,
        "Functions from pairs to pairs, applied one after the other.",
        save=lambda functions: [keras.saving.serialize_keras_object(f) for f in functions],
        load=lambda saved: [keras.saving.deserialize_keras_object(f) for f in saved or ()],
        text=lambda functions: tuple(map(printing.function, functions)),
    )

    def __post_init__(self) -> None:
        self.gradient_transformers = list(self.gradient_transformers or ())

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if self.gradient_transformers:
            pairs = [(bare(gradient), variable) for gradient, variable in batch.pairs]
            for transform in self.gradient_transformers:
                pairs = list(translated(transform, batch.translation)(pairs))
            batch = batch.with_pairs(pairs)
        rest(batch)
