"""LARS: momentum, with a rate for each layer."""

from typing import Any

from optimization.configs.types import PositiveFloat, Share
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.layerwise import LayerAdaptationFields
from optimization.rules.modifiers import COUPLED
from optimization.rules.rule import Slot


@OPTIMIZERS_CLS.register("lars")
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
    unmodifiable = COUPLED
    is_wide = True
    largest_gradient = 2.0**100  # beyond, the rate of a layer is 0 in float32, or nearly
    slots = (Slot("momentum", "momentums", "momentum_buffer"),)

    name: str | None = "LARS"
    momentum: Share = 0.9
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
