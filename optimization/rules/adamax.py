"""Adamax: Adam by the largest gradient instead of the mean of squares."""

import math
from typing import Any, ClassVar

from optimization.rules.adam import AdamFields
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.decay import DecayForms
from optimization.rules.rule import Slot


@OPTIMIZERS_CLS.register("adamax")
class AdamaxConfig(DecayForms, AdamFields):
    """Adamax, Adam with the infinity norm.

    With t the updates, this one included:

        m <- beta_1 m + (1 - beta_1) g
        u <- max(beta_2 u, |g|);            w <- w - lr / (1 - beta_1^t) * m / (u + epsilon)
        u <- max(beta_2 u, |g| + epsilon);  w <- w - lr / (1 - beta_1^t) * m / u

    the second with `epsilon_in_norm`.

    Source: Kingma and Ba 2015, arXiv:1412.6980, section 7.1.

    Attributes:
        epsilon_in_norm: Whether epsilon is added to the gradient's part in the norm, as in
            PyTorch, or to the norm where it divides, as in Keras and TensorFlow.
    """

    class_name = "Adamax"
    argument_order = ("beta_1", "beta_2", "epsilon", "weight_decay")
    elementwise = True
    largest_gradient = math.inf
    native_usual: ClassVar = {"lr": 2e-3, "epsilon": 1e-8}
    slots = (Slot("momentum", "m", "exp_avg"), Slot("norm", "u", "exp_inf"))

    name: str | None = "Adamax"
    epsilon_in_norm: bool = False

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.keep(self.with_decay(g, w, h))
        m = s.lerp("momentum", g, 1 - h.beta_1)
        size = xp.abs(g) + h.epsilon if h.epsilon_in_norm else xp.abs(g)
        u = s.norm = xp.maximum(h.beta_2 * s.norm, size)
        rate = h.lr / xp.one_minus_power(h.beta_1, h.t)
        return rate * (m / u) if h.epsilon_in_norm else rate * (m / (u + h.epsilon))
