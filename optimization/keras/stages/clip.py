"""The stages of clips: BERT's, and the one that acts on what the transformers gave."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras import ops

from optimization.keras import gradients
from optimization.keras.norms import Norm, root_of_squares, times
from optimization.keras.stages.stage import Batch, Rest, Stage, argument
from optimization.rules import base

Clipped = tuple[list[Any], list[Any]]


def is_clipping(pipeline: Any) -> bool:
    """Says whether an optimizer has a clip, of whichever stage."""
    return any(getattr(pipeline, clip) for clip in ("gradient_clip_norm", *base.CLIPS))


def most_after(pipeline: Any) -> float:
    """Returns what no gradient exceeds after the clips of an optimizer; infinite for no bound."""
    names = ("gradient_clip_norm", "clipnorm", "clipvalue", "global_clipnorm")
    clips = [getattr(pipeline, name) for name in names]
    return base.most_after(clips, pipeline.adaptive_clip_factor)


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
        if is_clipping(self.pipeline):
            self.make("gradient_norm", "float32")

    @property
    def last_gradient_norm(self) -> Any:
        """Norm over all gradients of the last update, before clips; None without a clip."""
        return self.made.get("gradient_norm")

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if is_clipping(self.pipeline) and batch.grads:
            norm, bound = gradients.global_norm(batch.grads), self.gradient_clip_norm
            if self.made:
                self.last_gradient_norm.assign(norm.value)
            batch = replace(batch, norm=norm)
            if bound is not None:
                grads = gradients.clip_by_global_norm(batch.grads, bound, norm)
                exceeded = (norm > bound,)
                batch = replace(batch, grads=grads, norm=norm.limited(bound), exceeded=exceeded)
        rest(batch)


class Clip(Stage):
    """Clips the gradients of an update, and counts the updates that a clip changed.

    Two of its bounds would hide each other, and a transformer may clip by itself: such
    combinations are errors.
    """

    title = "clip"
    sees = "with no transformers: what BERT's clip gave"
    set_by = "`global_clipnorm`, `clipnorm`, `clipvalue`, `adaptive_clip_factor`"
    shows = ("clipped_share",)

    clipnorm: float | None = argument(None, "Bound on the norm of each variable's gradient.")
    clipvalue: float | None = argument(None, "Bound on the absolute value of each entry.")
    global_clipnorm: float | None = argument(None, "Bound on the norm over all gradients.")
    adaptive_clip_factor: float | None = argument(
        None,
        "Bound on the norm of each unit's gradient, as a multiple of the norm of the unit's "
        "weights (Brock et al. 2021, arXiv:2102.06171).",
    )
    adaptive_clip_epsilon: float = argument(1e-3, "Least norm of weights in that.")

    def __post_init__(self) -> None:
        self.require_positive(*base.CLIPS, "adaptive_clip_epsilon")
        if len(self._set()) > 1:
            among = ", ".join(f"`{clip}`" for clip in base.CLIPS)
            raise ValueError(f"Only one of {among} can be set, received: {self._set()}")

    def _set(self) -> dict[str, float]:
        return {clip: getattr(self, clip) for clip in base.CLIPS if getattr(self, clip)}

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        if self._set() and pipeline.gradient_transformers:
            raise ValueError(
                "Argument `gradient_transformers` can't be combined with a clip (a transformer may "
                f"clip by itself), received: {self._set()}"
            )

    def build(self, variables: Sequence[Any]) -> None:
        if is_clipping(self.pipeline):
            self.make("clipped_steps", "int")

    @property
    def clipped_share(self) -> Any:
        """Share of the updates in which a clip changed something; None without a clip."""
        if not self.made:
            return None
        updates = ops.maximum(self.pipeline.iterations, 1)
        return ops.cast(self.made["clipped_steps"], "float32") / ops.cast(updates, "float32")

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if batch.norm is not None and batch.grads:
            grads, exceeded = self._clipped(list(batch.grads), batch.variables, batch.norm)
            for count in self.made.values():
                excess = ops.any(ops.stack([*batch.exceeded, *exceeded]))
                count.assign_add(ops.cast(excess, count.dtype))
            batch = batch.with_grads(grads)
        rest(batch)

    def _clipped(self, grads: list[Any], variables: Sequence[Any], norm: Norm) -> Clipped:
        """Returns the gradients clipped, and whether bounds were exceeded."""
        if self.global_clipnorm is not None:
            bound = self.global_clipnorm
            # Transformers are not combined with this clip, so nothing came between.
            return gradients.clip_by_global_norm(grads, bound, norm), [norm > bound]
        if self.clipnorm is not None:
            grads, exceeds = gradients.clip_by_norm(grads, self.clipnorm)
            return grads, [ops.any(exceeds)]
        if self.clipvalue is not None:
            bound = self.clipvalue
            exceeded = [ops.max(ops.abs(gradients.entries(g))) > bound for g in grads]
            return [gradients.clip_by_value(gradient, bound) for gradient in grads], exceeded
        if self.adaptive_clip_factor is not None:
            bounds = self.adaptive_clip_factor, self.adaptive_clip_epsilon
            pairs = zip(grads, variables, strict=True)
            found = [_adaptively(gradient, variable, *bounds) for gradient, variable in pairs]
            return [gradient for gradient, _ in found], [excess for _, excess in found]
        return grads, []


def _adaptively(gradient: Any, variable: Any, factor: float, epsilon: float) -> tuple[Any, Any]:
    """Adaptive clipping (Brock et al. 2021, arXiv:2102.06171): |g| at most factor * |w|.

    Norms are those of units: of all weights of an output (all axes but the last), of the whole of
    a bias or scalar. |w| counts as epsilon at least, so that weights can leave 0. A sparse
    gradient becomes dense.
    """
    dense = gradients.densify(gradient)
    bound = factor * ops.maximum(unitwise_norm(ops.convert_to_tensor(variable)).value, epsilon)
    norm = unitwise_norm(dense)
    divisor, factor = norm.clip(ops.cast(bound, "float32"))
    return gradients.scale_all([dense], factor, divisor)[0], ops.any(norm > bound)


def unitwise_norm(x: Any) -> Norm:
    """Returns the norm of each unit, in a shape that broadcasts with x."""
    one_unit = sum(size > 1 for size in x.shape) <= 1
    axes = None if one_unit else tuple(range(len(x.shape) - 1))

    def squares(tensors: Sequence[Any], factor: Any) -> Any:
        scaled = ops.square(times(tensors[0], factor))
        return ops.cast(ops.sum(scaled, axis=axes, keepdims=not one_unit), "float32")

    return root_of_squares(squares, [x])
