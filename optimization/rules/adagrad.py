"""Adagrad: the gradient over the root of the sum of its squares."""

from collections.abc import Set
from typing import Any, ClassVar

from optimization.configs.types import NonNegativeFloat, PositiveFloat
from optimization.rules.base import OPTIMIZERS_CLS, SUMS_OF_SQUARES
from optimization.rules.decay import DecayForms
from optimization.rules.rule import Slot


@OPTIMIZERS_CLS.register("adagrad")
class AdagradConfig(DecayForms):
    """Adagrad: the gradient over the root of the sum of its squares.

        s <- s + g^2,                              s = initial_accumulator_value at the start
        w <- w - lr g / sqrt(s + epsilon)          `epsilon_in_sqrt`
        w <- w - lr g / (sqrt(s) + epsilon)        otherwise

    Source: Duchi, Hazan and Singer 2011, https://jmlr.org/papers/v12/duchi11a.html.

    Attributes:
        initial_accumulator_value: What the sums of squares start from.
        epsilon_in_sqrt: Whether epsilon is added to the sum of squares, as in Keras and
            TensorFlow, or to its root, as in PyTorch.
        epsilon: Keeps the divisor from 0.
    """

    class_name = "Adagrad"
    largest_gradient = SUMS_OF_SQUARES
    argument_order = ("initial_accumulator_value", "epsilon", "weight_decay")
    elementwise = True
    torch_class = "Adagrad"
    torch_note = "`epsilon_in_sqrt: false`, no decay"
    torch_lacks = ("weight_decay",)
    native_usual: ClassVar = {"lr": 1e-2, "epsilon": 1e-10, "initial_accumulator_value": 0.0}
    slots = (
        Slot(
            *("accumulator", "accumulators", "sum"),
            start="initial_accumulator_value",
            exact="a sum of squares",
        ),
    )

    name: str | None = "Adagrad"
    initial_accumulator_value: NonNegativeFloat = 0.1
    epsilon: PositiveFloat = 1e-7
    epsilon_in_sqrt: bool = True

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = self.with_decay(g, w, h)
        squared = xp.bounded(g, self.largest_gradient, tells=False)
        g = xp.bounded(g, self.largest_gradient)
        total = s.add_square("accumulator", squared)
        if h.epsilon_in_sqrt:
            return h.lr * (g / xp.sqrt(total + h.epsilon))
        return h.lr * (g / (xp.sqrt(total) + h.epsilon))

    def is_torchs(self, changing: Set[str]) -> bool:
        return not self.epsilon_in_sqrt
