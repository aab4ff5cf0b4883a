"""FTRL-proximal."""

from typing import Annotated, Any, ClassVar

from annotated_types import Lt

from optimization.configs.types import NonNegativeFloat
from optimization.rules.base import OPTIMIZERS_CLS, SUMS_OF_SQUARES
from optimization.rules.modifiers import OF_STEP
from optimization.rules.rule import Rule, Slot


@OPTIMIZERS_CLS.register("ftrl")
class FtrlConfig(Rule):
    """FTRL-proximal, which makes weights exactly 0 by `l1_regularization_strength`.

    With p = `learning_rate_power`, l1, l2 and shrinkage the regularization strengths:

        n' = n + g^2,                             n = initial_accumulator_value at the start
        z <- z + g + 2 shrinkage w - (n'^-p - n^-p) / lr * w
        q = (n'^-p + beta) / lr + 2 l2
        w <- (clip(z, -l1, l1) - z) / q;  n <- n'

    It divides by the learning rate: a warmup has to start above 0.

    Source: McMahan et al. 2013, doi:10.1145/2487575.2488200; as in Keras' Ftrl.

    Attributes:
        learning_rate_power: The power p by which rates fall; -0.5 for the inverse root.
        initial_accumulator_value: What the sums of squares start from.
        l1_regularization_strength: Of the absolute weights; above 0, small weights become 0.
        l2_regularization_strength: Of the squared weights.
        l2_shrinkage_regularization_strength: Of the squared weights, by way of the gradient.
        beta: The paper's beta: a larger one makes the first steps smaller.
    """

    divides_by_rate = True
    class_name = "Ftrl"
    largest_gradient = SUMS_OF_SQUARES
    elementwise = True
    unmodifiable: ClassVar = dict.fromkeys(
        OF_STEP, "`ftrl` can't have it: it makes each weight anew of its sums, whatever the step"
    )
    native_arguments: ClassVar = {
        "learning_rate_power": "lr_power",
        "l1_regularization_strength": "l1",
        "l2_regularization_strength": "l2",
        "l2_shrinkage_regularization_strength": "l2_shrinkage",
    }
    slots = (
        Slot(
            *("accumulator", "accumulators", "accumulator"),
            start="initial_accumulator_value",
            exact="a sum of squares",
        ),
        Slot("linear", "linears", "linear", exact="a sum of gradients"),
    )

    name: str | None = "Ftrl"
    learning_rate_power: Annotated[float, Lt(0)] = -0.5
    initial_accumulator_value: NonNegativeFloat = 0.1
    l1_regularization_strength: NonNegativeFloat = 0.0
    l2_regularization_strength: NonNegativeFloat = 0.0
    l2_shrinkage_regularization_strength: NonNegativeFloat = 0.0
    beta: NonNegativeFloat = 0.0

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(g, self.largest_gradient)
        before = xp.power(s.accumulator, -h.learning_rate_power)
        total = s.add_square("accumulator", g)
        after = xp.keep(xp.power(total, -h.learning_rate_power))
        shrinkage = 2 * h.l2_shrinkage_regularization_strength
        pull = (after - before) / h.lr * w
        z = s.scale_add("linear", 1.0, g + shrinkage * w - pull)
        l1 = h.l1_regularization_strength
        l2 = h.l2_regularization_strength + h.beta / (2.0 * h.lr)
        return w - (xp.clip(z, -l1, l1) - z) / (after / h.lr + 2 * l2)
