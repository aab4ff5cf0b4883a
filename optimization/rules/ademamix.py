"""AdEMAMix: Adam with a second, slow mean of the gradient."""

from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Any, ClassVar

from optimization.configs.types import FirstSteps, NonNegativeFloat, PositiveFloat, Share
from optimization.rules.adam import MOMENTS, AdamFields, corrected_root
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.decay import DecayLists
from optimization.rules.rule import Slot


@OPTIMIZERS_CLS.register("ademamix")
class AdEMAMixConfig(DecayLists, AdamFields):
    """AdEMAMix: a fast and a slow mean of the gradient, over the root of the mean of its square.

    With t the updates, this one included, and g the gradient:

        m1 <- beta_1 m1 + (1 - beta_1) g
        m2 <- b m2 + (1 - b) g
        v <- beta_2 v + (1 - beta_2) g^2
        u = (m1 / (1 - beta_1^t) + a m2) / (sqrt(v / (1 - beta_2^t)) + epsilon)
        w <- w - lr * (u + weight_decay * w)

    a = alpha * min(1, t / alpha_warmup). The half-life of b is nearly linear in t, from that of
    beta_1 to that of beta_3, with x = min(1, t / beta_3_warmup):

        1 / ln(b) = (1 - x) / ln(beta_1) + x / ln(beta_3)

    The slow mean starts from 0 without a correction, and pays in long trainings. The paper's
    warmups are as long as the training.

    Source: Pagliardini et al. 2024, arXiv:2409.03137.

    Attributes:
        beta_3: The decay of the slow mean.
        alpha: The share of the slow mean in the step, 4 to 10 in the paper.
        alpha_warmup: Optimizer steps in which that share grows from 0; 0 for none.
        beta_3_warmup: Optimizer steps in which the decay of the slow mean grows from beta_1; 0 for
            none.
    """

    class_name = "AdEMAMix"
    argument_order = ("beta_1", "beta_2", "beta_3", "alpha", "epsilon", "weight_decay")
    elementwise = True
    native_arguments: ClassVar = {"beta_3": "betas.2"}
    slots = (*MOMENTS, Slot("slow_momentum", "slow_momentums", "exp_avg_slow"))

    name: str | None = "AdEMAMix"
    beta_3: Share = 0.9999
    alpha: NonNegativeFloat = 5.0
    alpha_warmup: FirstSteps = field(default=0, metadata={"null": True})
    beta_3_warmup: FirstSteps = field(default=0, metadata={"null": True})
    epsilon: PositiveFloat = 1e-8

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.beta_3_warmup and not 0 < self.beta_1 < self.beta_3:
            got = f"got beta_1 {self.beta_1} and beta_3 {self.beta_3}"
            yield "beta_3_warmup", f"needs `beta_1` above 0 and below `beta_3`, {got}"
        if self.alpha_warmup and not self.alpha:
            yield "alpha_warmup", "needs `alpha` > 0, got alpha 0"

    def own_schedules(self) -> dict[str, str]:
        warmups = {"alpha": "alpha_warmup", "beta_3": "beta_3_warmup"}
        return {name: warmup for name, warmup in warmups.items() if getattr(self, warmup)}

    def drawn_curves(self) -> dict[str, Callable[[Any, Any], Any]]:
        return {
            "alpha": lambda done, xp: _alpha(self, done + 1, xp),
            "beta_3": lambda done, xp: 1 - _share(self, done + 1, xp),
        }

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(g, self.largest_gradient)
        fast = s.lerp("momentum", g, 1 - h.beta_1)
        slow = s.lerp("slow_momentum", g, _share(h, h.t, xp))
        v = s.lerp_square("velocity", g, 1 - h.beta_2)
        correction = 1 / xp.one_minus_power(h.beta_1, h.t)
        m = correction * fast + _alpha(h, h.t, xp) * slow
        return h.lr * (m / (corrected_root(v, h, xp) + h.epsilon))


def _alpha(h: Any, t: Any, xp: Any) -> Any:
    """Returns the share of the slow mean in update t."""
    return h.alpha * xp.minimum(t / h.alpha_warmup, 1.0) if h.alpha_warmup else h.alpha


def _share(h: Any, t: Any, xp: Any) -> Any:
    """Returns 1 - b of update t, without the rounding of a b near 1."""
    if not h.beta_3_warmup:
        return 1 - h.beta_3
    x = xp.minimum(t / h.beta_3_warmup, 1.0)
    return -xp.expm1(1 / ((1 - x) / xp.log(h.beta_1) + x / xp.log(h.beta_3)))
