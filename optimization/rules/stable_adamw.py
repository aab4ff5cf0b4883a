"""StableAdamW: AdamW whose steps are short where the second moment lags behind."""

from collections.abc import Sequence
from typing import Any

from optimization.configs.types import PositiveFloat, Share
from optimization.rules.adam import FIRST, MOMENTS, AdamFields
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.decay import DecayLists
from optimization.rules.layerwise import LayerwiseRule
from optimization.rules.rule import given


@OPTIMIZERS_CLS.register("stable_adamw")
class StableAdamWConfig(DecayLists, LayerwiseRule, AdamFields):
    """AdamW with Adafactor's clip of updates: a spike of the loss or a new task make no large step.

    With m^ and v^ the moments of the gradient g, corrected for their start from zero, of each
    variable:

        RMS = sqrt(mean(g^2 / max(v^, epsilon^2)))
        eta = lr / max(1, RMS)
        w <- w - eta * (m^ / (sqrt(v^) + epsilon) + weight_decay * w)

    Source: Wortsman et al. 2023, arXiv:2304.13013.
    """

    class_name = "StableAdamW"
    argument_order = (*FIRST, "weight_decay")
    slots = MOMENTS

    name: str | None = "StableAdamW"
    beta_2: Share = 0.99
    epsilon: PositiveFloat = 1e-8

    def norms_of(self, h: Any) -> Sequence[str]:
        return ("u",)

    def decay_before(self, h: Any) -> Any:
        return 0.0  # it has the rate that is only known then

    def move(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> None:
        g = xp.bounded(g, self.largest_gradient)
        s.lerp("momentum", g, 1 - h.beta_1)
        s.lerp_square("velocity", g, 1 - h.beta_2)

    def direction(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(g, self.largest_gradient, tells=False)
        v = s.velocity / xp.one_minus_power(h.beta_2, h.t)
        return g / xp.maximum(xp.sqrt(v), h.epsilon)

    def finish(self, u: Any, w: Any, s: Any, norms: Any, h: Any, xp: Any) -> Any:
        rate = h.lr / xp.maximum(norms.u / xp.size(w) ** 0.5, 1.0)
        root = xp.sqrt(xp.one_minus_power(h.beta_2, h.t))
        correction = root / xp.one_minus_power(h.beta_1, h.t)
        step = correction * (s.momentum / (xp.sqrt(s.velocity) + root * h.epsilon))
        step = h.modified(step)
        return rate * (step + h.weight_decay * h.decay(w, step) if given(h.weight_decay) else step)
