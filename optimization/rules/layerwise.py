"""Rules whose step is scaled for each layer, by norms or means over a variable."""

from collections.abc import Sequence
from typing import Any, ClassVar

from optimization.configs.types import NonNegativeFloat, Patterns
from optimization.matching.patterns import matches_any
from optimization.rules.rule import Numbers, Rule, given


class LayerwiseRule(Rule):
    """A rule of parts, between which means and norms are computed, on Keras by TensorFlow."""

    formula_parts: ClassVar[tuple[str, ...]] = ("direction", "finish")
    is_wide: ClassVar[bool] = False  # whether squares of directions may be infinite or 0

    def averaged_axes(self, h: Numbers) -> Sequence[int]:
        """Returns the axes of which `move` gets the means of the gradient's squares."""
        return ()

    def norms_of(self, h: Numbers) -> Sequence[str]:
        """Returns of what `finish` gets the norm: "w", the weight, "u", the direction, or both."""
        return ("w", "u") if h.adapt else ()

    def move(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> None:
        """Moves the state, before norms are taken; `h.means` are those of `averaged_axes`."""

    def direction(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        """Returns the direction whose norm counts, of the state as it is."""
        raise NotImplementedError(f"{type(self).__name__} has no formula: define `direction`")

    def finish(self, u: Any, w: Any, s: Any, norms: Any, h: Any, xp: Any) -> Any:
        """Returns what is subtracted from a weight, of what `direction` returned, and norms."""
        raise NotImplementedError(f"{type(self).__name__} has no formula: define `finish`")

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        axes = self.averaged_axes(h)
        if axes:
            squares = xp.keep(xp.square(g))
            h = Numbers(**{**vars(h), "means": [xp.mean(squares, axis) for axis in axes]})
        self.move(g, w, s, h, xp)
        u = self.direction(g, w, s, h, xp)  # not to be kept: norms leave it as it is
        of = {"w": (w,), "u": (u, self.is_wide)}
        norms = {name: xp.norm(*of[name]) for name in self.norms_of(h)}
        return self.finish(u, w, s, Numbers(**norms), h, xp)


class LayerAdaptationFields(LayerwiseRule):
    """What LAMB and LARS share.

    Attributes:
        weight_decay_rate: Times the weight, part of the update that is scaled for each layer. At
            most one of it and `weight_decay`, which acts before that update, may be set.
        exclude_from_weight_decay: Regular expressions for the paths that do not decay.
        exclude_from_layer_adaptation: Regular expressions for the paths that are not scaled;
            None for the same as `exclude_from_weight_decay`.
    """

    decay_arguments = ("weight_decay_rate", "weight_decay")
    variable_settings: ClassVar = {"adapt": True}
    native_arguments: ClassVar = {
        "weight_decay": "decoupled_weight_decay",
        "eeta": "trust_coefficient",
    }

    weight_decay_rate: NonNegativeFloat = 0.0
    exclude_from_weight_decay: Patterns | None = None
    exclude_from_layer_adaptation: Patterns | None = None

    def settings(self, path: str, shape: Sequence[int]) -> dict[str, Any]:
        spared = self.exclude_from_layer_adaptation
        spared = self.exclude_from_weight_decay if spared is None else spared
        return {"adapt": not matches_any(path, spared)}

    def decayed(self, u: Any, w: Any, h: Any) -> Any:
        return u + h.weight_decay_rate * w if given(h.weight_decay_rate) else u
