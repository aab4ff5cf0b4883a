"""The clips of `PipelineOptimizer`: which may be combined, in which order they act, and how often.

First `gradient_clip_norm`, then gradient transformers, then the one that is set of

- `global_clipnorm`: all gradients times one factor, so that the norm over all is at most the bound;
- `clipnorm`: each gradient times a factor of its own;
- `clipvalue`: each entry for itself;
- `adaptive_clip_factor`: each unit in proportion to its weights.

Two of the last four would hide each other, and a transformer may clip by itself: such combinations
are errors.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from optimization.optimizers import gradients
from optimization.optimizers.norms import Norm, root_of_squares, times

ALTERNATIVES = ("global_clipnorm", "clipnorm", "clipvalue", "adaptive_clip_factor")
CLIPS = ("gradient_clip_norm", *ALTERNATIVES)


def check(optimizer: keras.optimizers.Optimizer) -> None:
    """Checks an optimizer's bounds, its loss scale, and that no transformer meets a clip.

    Raises:
        ValueError: If a value is not > 0, for two clips that are alternatives, or for
            transformers together with a clip.
    """
    for argument in (*CLIPS, "adaptive_clip_epsilon", "loss_scale_factor"):
        value = getattr(optimizer, argument)
        if value is not None and not value > 0:
            raise ValueError(f"Argument `{argument}` must be > 0, received: {argument}={value}")
    clips = {clip: getattr(optimizer, clip) for clip in ALTERNATIVES if getattr(optimizer, clip)}
    if len(clips) > 1:
        raise ValueError(f"Only one of {ALTERNATIVES} can be set, received: {clips}")
    if clips and optimizer.gradient_transformers:
        raise ValueError(
            "Argument `gradient_transformers` can't be combined with a clip (a transformer may "
            f"clip by itself), received: {clips}"
        )


class Before(NamedTuple):
    """What the first clip found.

    Attributes:
        norm: The norm over all gradients that it returned.
        exceeded: Whether its bound was exceeded, if there is one.
    """

    norm: Norm
    exceeded: list[Any]


class Clip:
    """Clips the gradients of an update, and keeps what they were like before.

    Args:
        optimizer: Has the bounds, and gets the variables.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        check(optimizer)
        self._optimizer = optimizer
        self.acts = any(getattr(optimizer, clip) for clip in CLIPS)
        self.norm: keras.Variable | None = None
        self.count: keras.Variable | None = None

    def build(self) -> None:
        """Creates the statistics, as variables of the optimizer, if there is a clip."""
        if self.acts:
            self.norm = self._optimizer.add_variable((), dtype="float32", name="gradient_norm")
            self.count = self._optimizer.add_variable((), dtype="int", name="clipped_steps")

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns its variables under their names."""
        if self.norm is None:
            return {}
        return {"gradient_norm": self.norm, "clipped_steps": self.count}

    def first(self, grads: Sequence[Any]) -> tuple[list[Any], Before | None]:
        """Acts by `gradient_clip_norm`, before transformers; keeps the norm of what came in.

        Returns:
            The gradients, and what `rest` is to know; None without a clip.
        """
        grads = list(grads)
        if not self.acts or not grads:
            return grads, None
        norm = gradients.global_norm(grads)
        self.norm.assign(norm.value)
        bound = self._optimizer.gradient_clip_norm
        if bound is None:
            return grads, Before(norm, [])
        clipped = gradients.clip_by_global_norm(grads, bound, norm)
        return clipped, Before(norm.limited(bound), [norm > bound])

    def rest(
        self, grads: Sequence[Any], variables: Sequence[Any], before: Before | None
    ) -> list[Any]:
        """Acts by the other clip, and counts.

        Args:
            grads: The gradients, without duplicate indices where they are sparse.
            variables: Their variables.
            before: What `first` returned.
        """
        grads = list(grads)
        if before is None or not grads:
            return grads
        grads, more = self._clipped(grads, variables, before.norm)
        excess = ops.any(ops.stack([*before.exceeded, *more]))
        self.count.assign_add(ops.cast(excess, self.count.dtype))
        return grads

    def _clipped(
        self, grads: list[Any], variables: Sequence[Any], norm: Norm
    ) -> tuple[list[Any], list[Any]]:
        """Returns the gradients clipped, and whether the bound was exceeded, by gradient."""
        optimizer, exceeded = self._optimizer, []
        if optimizer.global_clipnorm is not None:
            bound = optimizer.global_clipnorm
            # Transformers are not combined with this clip, so nothing came between.
            return gradients.clip_by_global_norm(grads, bound, norm), [norm > bound]
        if optimizer.clipnorm is not None:
            grads, exceeds = gradients.clip_by_norm(grads, optimizer.clipnorm)
            exceeded.append(ops.any(exceeds))
        elif optimizer.clipvalue is not None:
            bound = optimizer.clipvalue
            exceeded += [gradients.largest(gradient) > bound for gradient in grads]
            grads = [gradients.clip_by_value(gradient, bound) for gradient in grads]
        elif optimizer.adaptive_clip_factor is not None:
            clipped = [
                _adaptively(g, v, optimizer.adaptive_clip_factor, optimizer.adaptive_clip_epsilon)
                for g, v in zip(grads, variables, strict=True)
            ]
            grads = [gradient for gradient, _ in clipped]
            exceeded += [excess for _, excess in clipped]
        return grads, exceeded


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
