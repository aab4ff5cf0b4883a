"""Lion."""

from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from optimization.configs.types import Share
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.rule import Rule, Slot


@OPTIMIZERS_CLS.register("lion")
class LionConfig(Rule):
    """Lion: steps of one size, by the sign of an average of the gradient.

        w <- w - lr * weight_decay * w
        w <- w - lr * sign(beta_1 m + (1 - beta_1) g)
        m <- beta_2 m + (1 - beta_2) g

    Its rate is usually 3 to 10 times smaller than Adam's, and its decay as many times larger.

    Source: Chen et al. 2023, arXiv:2302.06675.

    Attributes:
        beta_1: The share of the average in the step.
        beta_2: The decay of the average.
    """

    class_name = "Lion"
    elementwise = True
    moves_last = ("momentum",)
    native_usual: ClassVar = {"lr": 1e-4}
    slots = (Slot("momentum", "momentums", "exp_avg"),)

    name: str | None = "Lion"
    beta_1: Annotated[float, Interval(gt=0, lt=1)] = 0.9
    beta_2: Share = 0.99

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        u = xp.sign(h.beta_1 * s.momentum + (1 - h.beta_1) * g)
        s.lerp("momentum", g, 1 - h.beta_2)
        return h.lr * u
