"""Nadam: Adam with the momentum of Nesterov."""

from typing import Any, ClassVar

from optimization.configs.types import NonNegativeFloat
from optimization.rules.adam import MOMENTS, AdamFields, corrected_root
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.decay import DecayForms
from optimization.rules.rule import Slot


@OPTIMIZERS_CLS.register("nadam")
class NadamConfig(DecayForms, AdamFields):
    """Nadam, Adam with Nesterov momentum.

    With t the updates, this one included, and mu_t = beta_1 (1 - 0.96^(t * momentum_decay) / 2):

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        n = mu_(t+1) m / (1 - mu_1 ... mu_(t+1)) + (1 - mu_t) g / (1 - mu_1 ... mu_t)
        w <- w - lr * n / (sqrt(v / (1 - beta_2^t)) + epsilon)

    Source: Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

    Attributes:
        momentum_decay: At step t the momentum is beta_1 * (1 - 0.96^(t * momentum_decay) / 2):
            1 in Keras, 0.004 in PyTorch unless set otherwise.
    """

    class_name = "Nadam"
    argument_order = ("beta_1", "beta_2", "epsilon", "weight_decay")
    elementwise = True
    native_usual: ClassVar = {"lr": 2e-3, "epsilon": 1e-8, "momentum_decay": 4e-3}
    slots = MOMENTS
    shared = (Slot("u_product", "u_product", "mu_product", start=1.0),)

    name: str | None = "Nadam"
    momentum_decay: NonNegativeFloat = 1.0

    def prepare(self, c: Any, h: Any, xp: Any) -> None:
        c.u_product = c.u_product * _momentum(h, h.t, xp)

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(self.with_decay(g, w, h), self.largest_gradient)
        m = s.lerp("momentum", g, 1 - h.beta_1)
        v = s.lerp_square("velocity", g, 1 - h.beta_2)
        now, following = _momentum(h, h.t, xp), _momentum(h, h.t + 1, xp)
        of_m = following / (1 - h.u_product * following)
        of_g = (1 - now) / (1 - h.u_product)
        return h.lr * ((of_m * m + of_g * g) / (corrected_root(v, h, xp) + h.epsilon))


def _momentum(h: Any, t: Any, xp: Any) -> Any:
    return h.beta_1 * (1 - 0.5 * xp.power(0.96, h.momentum_decay * t))
