"""The stages of clips: BERT's, and the one that acts on what the transformers gave.

A group that has a clip of its own has no part in the others: a norm over all gradients is that over
those of the group, and over all that are in no such group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from keras import ops

from optimization.configs.spike_config import ZClipConfig
from optimization.keras import gradients
from optimization.keras.groups import ParamGroup
from optimization.keras.norms import Norm, root_of_squares, times
from optimization.keras.stages.stage import Batch, Rest, Stage, argument
from optimization.keras.stages.update import Update
from optimization.rules import base

Clipped = tuple[list[Any], list[Any]]


def is_clipping(pipeline: Any) -> bool:
    """Says whether an optimizer has a clip, of whichever stage or group."""
    own = [bound for group in pipeline.param_groups for bound in group.clip.values()]
    return any([pipeline.zclip, *own, *(getattr(pipeline, clip) for clip in base.ALL_CLIPS)])


def refuse_transformers(pipeline: Any, clips: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for transformers beside clips."""
    if clips and pipeline.gradient_transformers:
        raise ValueError(
            "Argument `gradient_transformers` can't be combined with a clip (a transformer may "
            f"clip by itself), received: {dict(clips)}"
        )


def owners_of(pipeline: Any, variables: Sequence[Any]) -> list[ParamGroup | None]:
    """Returns the group of each variable, if it has a clip of its own, else None."""
    if not any(group.clip for group in pipeline.param_groups):
        return [None] * len(variables)
    owners = pipeline.stage(Update).members.owners
    found = [owners[pipeline._get_variable_index(variable)] for variable in variables]
    return [owner if owner is not None and owner.clip else None for owner in found]


def by_owner(pipeline: Any, variables: Sequence[Any]) -> dict[str, list[int]]:
    """Returns the places of variables by the group whose clip they have, "" for that of all."""
    places: dict[str, list[int]] = {}
    for place, owner in enumerate(owners_of(pipeline, variables)):
        places.setdefault("" if owner is None else owner.label, []).append(place)
    return places


def most_after(pipeline: Any, owner: ParamGroup | None) -> float:
    """Returns what no gradient exceeds after the clips that act on it; infinite for no bound.

    A bound on a schedule counts as what it starts from.
    """
    clips = {name: getattr(pipeline, name) for name in base.ALL_CLIPS}
    clips = dict(owner.clip) if owner is not None else clips
    factor = clips.pop("adaptive_clip_factor", None)
    return base.most_after(clips.values(), factor)


def bound_now(pipeline: Any, name: str) -> Any:
    """Returns the bound of a clip of all, a tensor where it follows a schedule; None for none."""
    bound, schedule = getattr(pipeline, name), pipeline.schedules.get(name)
    if bound is None or schedule is None:
        return bound
    return ops.cast(schedule(pipeline.iterations), "float32")


class FirstClip(Stage):
    """Clips by ZClip and `gradient_clip_norm`, and keeps the norm of what came in for all clips."""

    title = "ZClip, and BERT's clip"
    sees = "as it comes in"
    set_by = "`zclip`, `gradient_clip_norm` of `adamw`"
    shows = ("last_gradient_norm", "clipped_spikes")

    gradient_clip_norm: float | None = argument(
        None,
        "BERT's bound on the norm over all gradients. It acts before the transformers, as in Model "
        "Garden, and before the other clip; with `global_clipnorm` the smaller bound decides. None "
        "or 0 turns it off.",
    )
    zclip: Mapping[str, Any] | None = argument(
        None,
        "Settings of `ZClipConfig`, which clips gradients whose norm is an outlier of the running "
        "norms, before all other clips; None for none.",
    )

    def __post_init__(self) -> None:
        self.gradient_clip_norm = self.gradient_clip_norm or None
        self.require_positive("gradient_clip_norm")
        self._zclip = None if self.zclip is None else ZClipConfig(self.zclip)
        self.zclip = None if self._zclip is None else self._zclip.as_dict()
        self._kept: Any = None

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        refuse_transformers(pipeline, {"zclip": self.zclip} if self.zclip else {})

    def build(self, variables: Sequence[Any]) -> None:
        if is_clipping(self.pipeline):
            self.make("gradient_norm", "float32")
        if self._zclip is not None:
            shape = (self._zclip.SIZE,)
            self._kept = self.pipeline.add_variable(shape, dtype="float32", name="zclip")

    def variables_by_path(self) -> dict[str, Any]:
        return {**self.made, **({} if self._kept is None else {"zclip": self._kept})}

    @property
    def clipped_spikes(self) -> Any:
        """Updates whose gradients ZClip has clipped; None without it."""
        return None if self._kept is None else self._kept[ZClipConfig.CLIPPED]

    @property
    def last_gradient_norm(self) -> Any:
        """Norm over all gradients of the last update, before clips; None without a clip."""
        return self.made.get("gradient_norm")

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if is_clipping(self.pipeline) and batch.grads:
            places = by_owner(self.pipeline, batch.variables)
            norms = {
                label: gradients.global_norm([batch.grads[place] for place in own])
                for label, own in places.items()
            }
            if self.made:
                self.last_gradient_norm.assign(_together([*norms.values()]).value)
            batch = replace(batch, norms=norms)
            for bound in self._bounds(norms.get("")):
                norm, grads = batch.norms[""], list(batch.grads)
                own = [grads[place] for place in places[""]]
                _put(grads, places[""], gradients.clip_by_global_norm(own, bound, norm))
                norms = {**norms, "": norm.limited(bound)}
                exceeded = (*batch.exceeded, norm > bound)
                batch = replace(batch, grads=grads, norms=norms, exceeded=exceeded)
        rest(batch)

    def _bounds(self, norm: Norm | None) -> list[Any]:
        """Returns the bounds on a norm, of ZClip and BERT's clip, as far as there are such."""
        if norm is None:
            return []
        bounds = []
        if self._zclip is not None:
            kept = ops.convert_to_tensor(self._kept)
            bound, moved = self._zclip.clip(norm.value, kept, ops)
            self._kept.assign(moved)
            bounds.append(bound)
        bound = bound_now(self.pipeline, "gradient_clip_norm")
        return bounds if bound is None else [*bounds, bound]


def _together(norms: list[Norm]) -> Norm:
    """Returns the norm over what some norms are of."""
    if len(norms) == 1:
        return norms[0]
    return gradients.global_norm([ops.stack([norm.value for norm in norms])])


def _put(grads: list[Any], places: Sequence[int], values: Sequence[Any]) -> None:
    for place, value in zip(places, values, strict=True):
        grads[place] = value


class Clip(Stage):
    """Clips the gradients of an update, and counts the updates that a clip changed.

    Two of its bounds would hide each other, and a transformer may clip by itself: such
    combinations are errors.
    """

    title = "clip"
    sees = "with no transformers: what BERT's clip gave"
    set_by = "`global_clipnorm`, `clipnorm`, `clipvalue`, `adaptive_clip_factor`, also of a group"
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
        for group in pipeline.stage(Update).param_groups:
            refuse_transformers(pipeline, group.clip)
        refuse_transformers(pipeline, self._set())
        others = [name for name in self._set() if name != "global_clipnorm"]
        if pipeline.zclip is not None and others:
            raise ValueError(
                "Argument `zclip` can be combined with clips of the global norm alone, received: "
                f"{others[0]}={getattr(self, others[0])}"
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
        if batch.norms and batch.grads:
            grads, exceeded = list(batch.grads), list(batch.exceeded)
            bounds = {group.label: group.clip for group in self.pipeline.param_groups}
            bounds[""] = {name: bound_now(self.pipeline, name) for name in self._set()}
            for label, places in by_owner(self.pipeline, batch.variables).items():
                own = [grads[place] for place in places]
                variables = [batch.variables[place] for place in places]
                own, excesses = self._clipped(own, variables, bounds[label], batch.norms.get(label))
                _put(grads, places, own)
                exceeded += excesses
            for count in self.made.values() if exceeded else ():
                excess = ops.any(ops.stack(exceeded))
                count.assign_add(ops.cast(excess, count.dtype))
            batch = batch.with_grads(grads)
        rest(batch)

    def _clipped(
        self, grads: list[Any], variables: Sequence[Any], clip: Mapping[str, Any], norm: Norm | None
    ) -> Clipped:
        """Returns the gradients after a clip, and whether its bounds were exceeded."""
        for kind, bound in clip.items():
            if isinstance(bound, int | float) and not bound:  # which a group has for none
                continue
            if kind == "global_clipnorm":
                # Transformers are not combined with this clip, so nothing came between.
                norm = gradients.global_norm(grads) if norm is None else norm
                return gradients.clip_by_global_norm(grads, bound, norm), [norm > bound]
            if kind == "clipnorm":
                grads, exceeds = gradients.clip_by_norm(grads, bound)
                return grads, [ops.any(exceeds)]
            if kind == "clipvalue":
                exceeded = [ops.max(ops.abs(gradients.entries(g))) > bound for g in grads]
                return [gradients.clip_by_value(gradient, bound) for gradient in grads], exceeded
            pairs, epsilon = zip(grads, variables, strict=True), self.adaptive_clip_epsilon
            found = [
                _adaptively(gradient, variable, bound, epsilon) for gradient, variable in pairs
            ]
            return [gradient for gradient, _ in found], [excess for _, excess in found]
        return grads, []


def _adaptively(gradient: Any, variable: Any, factor: Any, epsilon: float) -> tuple[Any, Any]:
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
