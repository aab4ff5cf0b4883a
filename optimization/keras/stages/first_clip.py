"""The stage of BERT's clip, before everything else that changes the gradient of an update."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from optimization.keras import gradients
from optimization.keras.stages.clip import is_clipping
from optimization.keras.stages.stage import Batch, Rest, Stage, argument


class FirstClip(Stage):
    """Clips by `gradient_clip_norm`, and keeps the norm of what came in for whichever clip."""

    title = "BERT's clip"
    sees = "as it comes in"
    set_by = "`gradient_clip_norm` of `adamw`"
    shows = ("last_gradient_norm",)

    gradient_clip_norm: float | None = argument(
        None,
        "BERT's bound on the norm over all gradients. It acts before the transformers, as in Model "
        "Garden, and before the other clip; with `global_clipnorm` the smaller bound decides. None "
        "or 0 turns it off.",
    )

    def __post_init__(self) -> None:
        self.gradient_clip_norm = self.gradient_clip_norm or None
        self.require_positive("gradient_clip_norm")

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the variable of the norm, if there is a clip."""
        if is_clipping(self.pipeline):
            self.make("gradient_norm", "float32")

    @property
    def last_gradient_norm(self) -> Any:
        """Norm over all gradients of the last update, before clips; None without a clip."""
        return self.made.get("gradient_norm")

    def __call__(self, batch: Batch, rest: Rest) -> None:
        """Clips; the batch gets the norm that it has then."""
        if is_clipping(self.pipeline) and batch.grads:
            norm, bound = gradients.global_norm(batch.grads), self.gradient_clip_norm
            if self.made:
                self.last_gradient_norm.assign(norm.value)
            if bound is None:
                batch = replace(batch, norm=norm)
            else:
                grads = gradients.clip_by_global_norm(batch.grads, bound, norm)
                exceeded = (norm > bound,)
                batch = replace(batch, grads=grads, norm=norm.limited(bound), exceeded=exceeded)
        rest(batch)
