"""Prodigy: Adam that estimates its own learning rate."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from annotated_types import Gt

from optimization.configs.types import PositiveFloat, Share
from optimization.rules.adam import FIRST, MOMENTS, AdamFields
from optimization.rules.base import OPTIMIZERS_CLS, SUMS_OF_SQUARES
from optimization.rules.decay import DecayForms, DecayLists
from optimization.rules.rule import Slot, given


def _number(shape: Sequence[int], h: Any) -> Sequence[int]:
    return ()


@OPTIMIZERS_CLS.register("prodigy")
class ProdigyConfig(DecayForms, DecayLists, AdamFields):
    """Prodigy: Adam whose steps are as long as the weights seem to be from where they should be.

    The learning rate is a factor on that estimate, 1 at its peak, and may follow any schedule. With
    x0 a weight before its first update, and b = `beta_3`, the sums over all variables together:

        m <- beta_1 m + (1 - beta_1) d g;  v <- beta_2 v + (1 - beta_2) (d g)^2
        r <- b r + lr d^2 / d0 * sum(g (x0 - w));  s <- b s + lr d^2 / d0 * g
        w <- w - lr d * (m / (sqrt(v) + d epsilon) + weight_decay * w)
        d <- max(d, d_coef * r / sum(|s|))

    It starts from d0 and never falls.
    The d of the divisor is that of the step, as in the paper; the authors' package and optax have
    the next one there. The estimate is `_d` of Keras' class, `param_groups[0]["d"]` in PyTorch, and
    in the state's `shared` in JAX. Groups and layers share it, but for those with an optimizer of
    their own.

    Source: Mishchenko and Defazio 2023, arXiv:2306.06101, algorithm 4; the switches as in the
    authors' package, prodigyopt.

    Attributes:
        beta_3: The decay of the sums that the estimate is made of; None for sqrt(beta_2).
        d0: The estimate at the start, less than any that will do.
        d_coef: A factor on later estimates; 0.5 for shorter and 2 for longer steps.
        growth_rate: The factor by which the estimate may grow in a step, once it is above d0; None
            for any.
        safeguard_warmup: Whether lr is left out of the step of s, so that a warmup leaves the
            estimate low.
        use_bias_correction: Whether lr is multiplied by sqrt(1 - beta_2^t) / (1 - beta_1^t), Adam's
            correction of moments that start from 0; also in r and s.
        decoupled_weight_decay: Whether weights decay as above; otherwise g + weight_decay * w is
            the gradient.
    """

    class_name = "Prodigy"
    usual_rate = 1.0
    argument_order = (*FIRST, "beta_3", "weight_decay")
    largest_gradient = SUMS_OF_SQUARES  # d may be above 1
    fixed_numbers = ("d0", "growth_rate")
    slots = (
        *MOMENTS,
        Slot("gradient_sum", "gradient_sums", "s", exact="a sum of gradients"),
        Slot("start", "starts", "p0", exact="a copy of the first weight"),
        Slot("numerator", "numerators", "numerator", shape=_number),
        Slot("denominator", "denominators", "denominator", shape=_number),
    )
    shared = (Slot("d", "d", "d", "d0"), Slot("d_max", "d_max", "d_max", "d0"))
    summed = ("numerator", "denominator")
    estimate = "d"
    native_arguments: ClassVar = {"beta_3": "beta3", "decoupled_weight_decay": "decouple"}

    name: str | None = "Prodigy"
    beta_3: Share | None = None
    epsilon: PositiveFloat = 1e-8
    d0: PositiveFloat = 1e-6
    d_coef: PositiveFloat = 1.0
    growth_rate: Annotated[float, Gt(1)] | None = None
    safeguard_warmup: bool = False
    use_bias_correction: bool = False

    def decay_before(self, h: Any) -> Any:
        return 0.0  # its rate is that of the step

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = self.with_decay(g, w, h)
        exact, g = xp.keep(g), xp.bounded(g, self.largest_gradient)
        rate = h.lr * h.d
        if h.use_bias_correction:
            root = xp.sqrt(xp.one_minus_power(h.beta_2, h.t))
            rate = rate * root / xp.one_minus_power(h.beta_1, h.t)
        _measure(g, exact, w, s, rate, h, xp)
        scaled = xp.keep(h.d * g)
        m = s.lerp("momentum", scaled, 1 - h.beta_1)
        v = s.lerp_square("velocity", scaled, 1 - h.beta_2)
        u = h.modified(m / (xp.sqrt(v) + h.d * h.epsilon))
        if h.decoupled_weight_decay and given(h.weight_decay):
            u = xp.keep(u)
            u = u + h.weight_decay * h.decay(w, u)
        return rate * u

    def conclude(self, c: Any, h: Any, xp: Any) -> None:
        # Without gradients so far it is 0 / 1.
        found = h.d_coef * h.numerator / xp.where(h.denominator > 0, h.denominator, 1.0)
        d = xp.where(c.d > h.d0, c.d, xp.maximum(c.d, found))
        most = xp.maximum(c.d_max, found)
        c.d_max = most
        c.d = most if h.growth_rate is None else xp.minimum(most, d * h.growth_rate)


def _measure(g: Any, exact: Any, w: Any, s: Any, rate: Any, h: Any, xp: Any) -> None:
    """Moves what the estimate is made of; g is the exact gradient within its bounds."""
    beta = h.beta_2**0.5 if h.beta_3 is None else h.beta_3
    unit = h.d / h.d0  # so that what is summed is not too small
    # What a variable holds when its first gradient comes, wherever it was loaded from.
    before = s.denominator
    start = xp.keep(xp.where(before > 0, s.start, w))
    s.start = start
    weight = unit * (h.d if h.safeguard_warmup else rate)
    total = xp.keep(s.scale_add("gradient_sum", beta, weight * g))
    s.denominator = xp.sum(xp.abs(total))
    most, after = ProdigyConfig.largest_gradient, s.denominator

    def is_within() -> Any:
        # weight |g| <= |total| + beta |total before it|: with one above they would be larger.
        return after + beta * before < weight * (most / 2)

    moved = xp.sum_along(exact, start, w, most, is_within)
    s.numerator = beta * s.numerator + unit * rate * moved
