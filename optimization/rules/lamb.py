"""LAMB: Adam, with a rate for each layer."""

from typing import Any

from optimization.configs.types import PositiveFloat
from optimization.rules.adam import MOMENTS, AdamFields, corrected_root
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.layerwise import LayerAdaptationFields


@OPTIMIZERS_CLS.register("lamb")
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
        g = xp.bounded(g, self.largest_gradient)
        s.lerp("momentum", g, 1 - h.beta_1)
        s.lerp_square("velocity", g, 1 - h.beta_2)

    def direction(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        correction = 1 / xp.one_minus_power(h.beta_1, h.t)
        u = correction * (s.momentum / (corrected_root(s.velocity, h, xp) + h.epsilon))
        u = h.modified(u)
        return self.decayed(u, h.decay(w, u), h)

    def finish(self, u: Any, w: Any, s: Any, norms: Any, h: Any, xp: Any) -> Any:
        return h.lr * xp.ratio(norms.w, norms.u) * u if h.adapt else h.lr * u
