"""ADOPT: Adam whose gradient is divided before it is averaged."""

from typing import Any

from optimization.configs.types import NonNegativeFloat, PositiveFloat, Share
from optimization.rules.adam import FIRST, MOMENTS, AdamFields
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.decay import DecayForms, DecayLists
from optimization.rules.rule import given


@OPTIMIZERS_CLS.register("adopt")
class ADOPTConfig(DecayLists, DecayForms, AdamFields):
    """ADOPT: the mean of gradients, each over the root of the second moment before it.

    With t the updates, this one included. The first gradient makes v = g^2, and moves no weight;
    from then on, with c = (t - 1)^clip_exponent:

        n = g / max(sqrt(v), epsilon);  n <- min(max(n, -c), c)
        m <- beta_1 m + (1 - beta_1) n
        w <- w - lr * (m + weight_decay * w)
        v <- beta_2 v + (1 - beta_2) g^2

    Source: Taniguchi et al. 2024, arXiv:2411.02853.

    Attributes:
        beta_2: The decay of the second moment, the mean of the gradient's square; any one is fine.
        epsilon: The least that a gradient is divided by.
        clip_exponent: The divided gradient is clipped to as much as the updates before this one to
            the power of this; None for no clipping.
    """

    class_name = "ADOPT"
    argument_order = (*FIRST, "weight_decay")
    elementwise = True
    moves_last = ("velocity",)
    slots = MOMENTS

    name: str | None = "ADOPT"
    beta_2: Share = 0.9999
    epsilon: PositiveFloat = 1e-6
    clip_exponent: NonNegativeFloat | None = 0.25

    def decay_before(self, h: Any) -> Any:
        return 0.0  # the first gradient moves nothing: `step` has it

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(self.with_decay(g, w, h), self.largest_gradient)
        later = xp.where(h.t > 1, 1.0, 0.0)
        n = g / xp.maximum(xp.sqrt(s.velocity), h.epsilon)
        if h.clip_exponent is None:
            n = later * n
        else:
            bound = later * xp.power(xp.maximum(h.t - 1, 1.0), h.clip_exponent)
            n = xp.maximum(xp.minimum(n, bound), -bound)
        m = h.modified(s.lerp("momentum", n, 1 - h.beta_1))
        s.lerp_square("velocity", g, 1 - h.beta_2 * later)
        if h.decoupled_weight_decay and given(h.weight_decay):
            return h.lr * (m + later * h.weight_decay * h.decay(w, m))
        return h.lr * m
