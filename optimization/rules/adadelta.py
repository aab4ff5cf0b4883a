"""Adadelta: steps of the size of earlier ones."""

from typing import Any, ClassVar

from optimization.configs.types import PositiveFloat, Share
from optimization.rules.base import MEANS_OF_SQUARES, OPTIMIZERS_CLS
from optimization.rules.decay import DecayForms
from optimization.rules.rule import Slot


@OPTIMIZERS_CLS.register("adadelta")
class AdadeltaConfig(DecayForms):
    """Adadelta: steps of the size of the past ones, with a rate that is usually 1.

        v <- rho v + (1 - rho) g^2
        u = sqrt(d + epsilon) / sqrt(v + epsilon) * g
        d <- rho d + (1 - rho) u^2
        w <- w - lr u

    Source: Zeiler 2012, arXiv:1212.5701.

    Attributes:
        rho: The decay of both moving means.
        epsilon: Keeps both roots from 0.
    """

    class_name = "Adadelta"
    largest_gradient = MEANS_OF_SQUARES
    elementwise = True
    native_usual: ClassVar = {"lr": 1.0, "rho": 0.9, "epsilon": 1e-6}
    slots = (
        Slot("accumulated_grad", "accumulated_grads", "square_avg"),
        Slot("accumulated_delta_var", "accumulated_delta_vars", "acc_delta"),
    )

    name: str | None = "Adadelta"
    rho: Share = 0.95
    epsilon: PositiveFloat = 1e-7

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = self.with_decay(g, w, h)
        squared = xp.bounded(g, self.largest_gradient, tells=False)
        g = xp.bounded(g, self.largest_gradient)
        v = s.lerp_square("accumulated_grad", squared, 1 - h.rho)
        of_steps = xp.sqrt(s.accumulated_delta_var + h.epsilon)
        u = xp.keep(of_steps / xp.sqrt(v + h.epsilon) * g)
        s.lerp_square("accumulated_delta_var", u, 1 - h.rho)
        return h.lr * u
