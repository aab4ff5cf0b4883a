"""The stage of a user's own functions of gradients."""

from collections.abc import Sequence
from typing import Any

import keras

from optimization.configs import printing
from optimization.keras.stages.reduce import GradientFunction
from optimization.keras.stages.stage import Batch, Rest, Stage, argument
from optimization.optimizers.gradients import bare


class Transform(Stage):
    """Calls the gradient transformers, one after the other."""

    title = "transformers"
    sees = "clipped by that"
    set_by = "`build_optimizer(gradient_transformers=...)`"

    gradient_transformers: Sequence[GradientFunction] | None = argument(
        None, "Functions from pairs to pairs, applied one after the other."
    )

    def __post_init__(self) -> None:
        self.gradient_transformers = list(self.gradient_transformers or ())

    def __call__(self, batch: Batch, rest: Rest) -> None:
        """Transforms."""
        if self.gradient_transformers:
            pairs = [(bare(gradient), variable) for gradient, variable in batch.pairs]
            for transform in self.gradient_transformers:
                pairs = list(transform(pairs))
            batch = batch.with_pairs(pairs)
        rest(batch)

    def get_config(self) -> dict[str, Any]:
        """Returns its field, as Keras serializes functions."""
        serialize = keras.saving.serialize_keras_object
        return {"gradient_transformers": [serialize(f) for f in self.gradient_transformers]}

    @classmethod
    def decoded(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the argument that a config stands for."""
        deserialize = keras.saving.deserialize_keras_object
        return {name: [deserialize(f) for f in value or ()] for name, value in config.items()}

    def printed(self) -> dict[str, Any]:
        """Returns the names of the functions."""
        return {"gradient_transformers": tuple(map(printing.function, self.gradient_transformers))}
