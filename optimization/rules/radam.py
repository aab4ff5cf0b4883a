"""RAdam: Adam whose first steps are without the second moment, and whose next ones are short."""

from typing import Any, Literal

from optimization.configs.types import PositiveFloat
from optimization.rules.adam import FIRST, MOMENTS, AdamFields
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.decay import DecayForms, DecayLists


@OPTIMIZERS_CLS.register("radam")
class RAdamConfig(DecayLists, DecayForms, AdamFields):
    """Rectified Adam: a warmup that follows from how much the second moment is known.

    With t the updates, this one included, c1 = 1 - beta_1^t, c2 = 1 - beta_2^t, m and v those of
    `adam`, n = 2 / (1 - beta_2) - 1 the length of the second moment in the end, and p that so far:

        p = n - 2 t beta_2^t / c2
        r = sqrt((p - 4) (p - 2) n / ((n - 4) (n - 2) p))
        w <- w - lr * r * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    p > 5
        w <- w - lr * m / c1                                         otherwise

    With `epsilon_placement: corrected` the former has sqrt(v / c2) + epsilon below m / c1.

    Source: Liu et al. 2020, arXiv:1908.03265.

    Attributes:
        epsilon_placement: The root to which epsilon is added: that of the `uncorrected` second
            moment, as in PyTorch's RAdam, or that of the `corrected` one, as in optax.
    """

    class_name = "RAdam"
    argument_order = (*FIRST, "weight_decay")
    elementwise = True
    slots = MOMENTS

    name: str | None = "RAdam"
    epsilon: PositiveFloat = 1e-8
    epsilon_placement: Literal["uncorrected", "corrected"] = "uncorrected"

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(self.with_decay(g, w, h), self.largest_gradient)
        m = s.lerp("momentum", g, 1 - h.beta_1)
        v = s.lerp_square("velocity", g, 1 - h.beta_2)
        rate = h.lr / xp.one_minus_power(h.beta_1, h.t)
        root = xp.sqrt(xp.one_minus_power(h.beta_2, h.t))
        epsilon = h.epsilon * root if h.epsilon_placement == "corrected" else h.epsilon
        length, last = _length(h, xp), 2 / (1 - h.beta_2) - 1
        p, n = xp.maximum(length, 5.0), xp.maximum(last, 5.0)  # where it is not used it is a number
        rectified = xp.sqrt((p - 4) * (p - 2) * n / ((n - 4) * (n - 2) * p))
        is_known = xp.where(length > 5, 1.0, 0.0)
        plain = rate * (1 - is_known) * m
        return plain + rate * rectified * root * is_known * (m / (xp.sqrt(v) + epsilon))


def _length(h: Any, xp: Any) -> Any:
    """Returns p, near which float32 has no digits left of the difference that it is.

    With a = -ln(beta_2) and f(x) = 1 / x - 1 / (e^x - 1) it is 2 / (1 - beta_2) - 1 - 2 / a, which
    is nearly 0, plus 2 t f(a t).
    """
    a = -xp.log(h.beta_2)
    x = a * h.t
    near, far = xp.minimum(x, 0.5), xp.maximum(x, 0.5)
    q = near * near
    series = 0.5 - near / 12 * (1 - q / 60 * (1 - q / 42 * (1 - q / 40 * (1 - q / 39.6))))
    exact = 1 / far - 1 / xp.expm1(xp.minimum(far, 80.0))
    return 2 / (1 - h.beta_2) - 1 - 2 / a + 2 * h.t * xp.where(x < 0.5, series, exact)
