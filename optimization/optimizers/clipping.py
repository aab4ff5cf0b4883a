"""The clips of `PipelineOptimizer`: which may be combined, and in which order they act."""

from collections.abc import Sequence
from typing import Any

import keras

from optimization.optimizers import gradients

CLIPS = ("gradient_clip_norm", "global_clipnorm", "clipnorm", "clipvalue")


def check(optimizer: keras.optimizers.Optimizer) -> None:
    """Checks an optimizer's bounds, its loss scale, and that no transformer meets a clip.

    Raises:
        ValueError: If a value is not > 0, or for transformers together with a clip.
    """
    for argument in (*CLIPS, "loss_scale_factor"):
        value = getattr(optimizer, argument)
        if value is not None and not value > 0:
            raise ValueError(f"Argument `{argument}` must be > 0, received: {argument}={value}")
    clips = {clip: getattr(optimizer, clip) for clip in CLIPS if getattr(optimizer, clip)}
    if clips and optimizer.gradient_transformers:
        raise ValueError(
            "Argument `gradient_transformers` can't be combined with a clip (a transformer may "
            f"clip by itself), received: {clips}"
        )


def clipped(optimizer: keras.optimizers.Optimizer, grads: Sequence[Any]) -> list[Any]:
    """Returns the gradients clipped: by `gradient_clip_norm` first, then by the other clip."""
    grads = list(grads)
    for bound in (optimizer.gradient_clip_norm, optimizer.global_clipnorm):
        if bound is not None:
            grads = gradients.clip_by_global_norm(grads, bound)
    if optimizer.clipnorm is not None:
        return [gradients.clip_by_norm(gradient, optimizer.clipnorm) for gradient in grads]
    if optimizer.clipvalue is not None:
        return [gradients.clip_by_value(gradient, optimizer.clipvalue) for gradient in grads]
    return grads
