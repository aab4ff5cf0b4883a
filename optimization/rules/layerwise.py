"""Rules whose step is scaled for each layer, by norms or means over a variable: LARS, LAMB."""

from collections.abc import Sequence
from typing import Any, ClassVar

from optimization.configs.base import config_dataclass
from optimization.configs.types import Decay, NonNegativeFloat, Patterns, PositiveFloat
from optimization.matching.patterns import matches_any
from optimization.rules.adam import MOMENTS, AdamFields, corrected_root
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.rule import Numbers, Rule, Slot, given


@config_dataclass
class LayerwiseRule(Rule):
    """A rule of parts, between which means and norms are computed, on Keras by TensorFlow."""

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
        raise NotImplementedError

    def finish(self, u: Any, w: Any, s: Any, norms: Any, h: Any, xp: Any) -> Any:
        """Returns what is subtracted from a weight, of what `direction` returned, and norms."""
        raise NotImplementedError

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        """Returns what is subtracted from a weight, and moves its state."""
        axes = self.averaged_axes(h)
        if axes:
            squares = xp.keep(xp.square(g))
            h = Numbers(**{**vars(h), "means": [xp.mean(squares, axis) for axis in axes]})
        self.move(g, w, s, h, xp)
        u = self.direction(g, w, s, h, xp)  # not to be kept: norms leave it as it is
        names, norms = self.norms_of(h), {}
        if "w" in names:
            norms["w"] = xp.norm(w)
        if "u" in names:
            norms["u"] = xp.norm(u, self.is_wide)
        return self.finish(u, w, s, Numbers(**norms), h, xp)


@config_dataclass
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
        """Returns a direction with the decay in it."""
        return u + h.weight_decay_rate * w if given(h.weight_decay_rate) else u


@OPTIMIZERS_CLS.register("lars")
@config_dataclass
class LARSConfig(LayerAdaptationFields):
    """LARS: momentum whose rate is scaled for each layer to a part of the weights' norm.

    With g <- g + weight_decay_rate * w, mu the momentum and ratio(x) = eeta * |w| / |x|, which is 1
    where a norm is 0:

        v <- mu v + lr * ratio(g) * g;  w <- w - v           nesterov: mu v + lr * ratio(g) * g
        v <- mu v + g;  w <- w - lr * ratio(v) * v           without `classic_momentum`

    Source: You et al. 2017, arXiv:1708.03888.

    Attributes:
        momentum: The share of the last step in the next; 0 for none.
        eeta: The trust coefficient.
        classic_momentum: Whether the learning rate is applied before the momentum, as in the
            paper, or after it.
        nesterov: Whether the gradient is taken ahead of the step (Nesterov 1983).
    """

    class_name = "LARS"
    argument_order = ("momentum", "eeta", "weight_decay_rate", "nesterov", "classic_momentum")
    usual_rate = 0.01
    is_wide = True
    slots = (Slot("momentum", "momentums", "momentum_buffer"),)

    name: str | None = "LARS"
    momentum: Decay = 0.9
    eeta: PositiveFloat = 0.001
    nesterov: bool = False
    classic_momentum: bool = True

    def move(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> None:
        if not h.classic_momentum:
            s.scale_add("momentum", h.momentum, self.decayed(g, w, h))

    def direction(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        if h.classic_momentum:
            return self.decayed(g, w, h)
        if not h.nesterov:
            return s.momentum
        return h.momentum * s.momentum + self.decayed(g, w, h)

    def finish(self, u: Any, w: Any, s: Any, norms: Any, h: Any, xp: Any) -> Any:
        rate = h.lr * xp.ratio(norms.w, norms.u, h.eeta) if h.adapt else h.lr
        if not h.classic_momentum:
            return rate * u
        u = xp.keep(rate * u)
        m = s.scale_add("momentum", h.momentum, u)
        return h.momentum * m + u if h.nesterov else m


@OPTIMIZERS_CLS.register("lamb")
@config_dataclass
class LAMBConfig(LayerAdaptationFields, AdamFields):
    """LAMB: Adam's step, scaled for each layer to a part of the weights' norm.

    With m^ and v^ the moments of the gradient, corrected for their start from zero:

        u = m^ / (sqrt(v^) + epsilon) + weight_decay_rate * w
        w <- w - lr * |w| / |u| * u                  the ratio is 1 where a norm is 0

    Source: You et al. 2020, arXiv:1904.00962.
    """

    class_name = "LAMB"
    slots = MOMENTS

    name: str | None = "LAMB"
    epsilon: PositiveFloat = 1e-6

    def move(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> None:
        s.lerp("momentum", g, 1 - h.beta_1)
        s.lerp_square("velocity", g, 1 - h.beta_2)

    def direction(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        correction = 1 / xp.one_minus_power(h.beta_1, h.t)
        u = correction * (s.momentum / (corrected_root(s.velocity, h, xp) + h.epsilon))
        return self.decayed(u, w, h)

    def finish(self, u: Any, w: Any, s: Any, norms: Any, h: Any, xp: Any) -> Any:
        return h.lr * xp.ratio(norms.w, norms.u) * u if h.adapt else h.lr * u
