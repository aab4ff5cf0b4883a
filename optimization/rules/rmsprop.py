"""RMSProp: the gradient over the root of an average of its squares."""

from collections.abc import Iterator
from typing import Any, ClassVar

from optimization.configs.types import PositiveFloat, Share
from optimization.rules.base import MEANS_OF_SQUARES, OPTIMIZERS_CLS
from optimization.rules.decay import DecayForms
from optimization.rules.rule import Slot


@OPTIMIZERS_CLS.register("rmsprop")
class RMSPropConfig(DecayForms):
    """RMSProp: the gradient over the root of a moving mean of its squares.

        v <- rho v + (1 - rho) g^2
        a <- rho a + (1 - rho) g                          if `centered`, else a = 0
        u = g / sqrt(v - a^2 + epsilon)                   `epsilon_in_sqrt`
        u = g / (sqrt(v - a^2) + epsilon)                 otherwise
        m <- momentum m + lr u;  w <- w - m               `classic_momentum`
        m <- momentum m + u;     w <- w - lr m            otherwise

    Source: Tieleman and Hinton 2012, lecture 6.5 of "Neural Networks for Machine Learning",
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf; centered as in Graves
    2013, arXiv:1308.0850.

    Attributes:
        epsilon_in_sqrt: Whether epsilon is added to the mean of squares, as in Keras and
            TensorFlow, or to its root, as in PyTorch.
        classic_momentum: Whether the learning rate is applied before the momentum, as in Keras
            and TensorFlow, or after it, as in PyTorch. Under a constant rate it makes no
            difference.
        rho: The decay of the moving means.
        momentum: The share of the last step in the next; 0 for none.
        epsilon: Keeps the divisor from 0.
        centered: Whether the squared mean of the gradient is subtracted from the mean of
            squares.
    """

    class_name = "RMSprop"
    largest_gradient = MEANS_OF_SQUARES
    argument_order = ("rho", "momentum", "epsilon", "centered", "weight_decay")
    elementwise = True
    native_usual: ClassVar = {"lr": 1e-2, "rho": 0.99, "epsilon": 1e-8}
    native_arguments: ClassVar = {"rho": "alpha"}
    slots = (
        Slot("velocity", "velocities", "square_avg"),
        Slot("momentum", "momentums", "momentum_buffer", 0.0, 1, lambda h: h.momentum > 0),
        Slot("average_gradient", "average_gradients", "grad_avg", 0.0, 2, lambda h: h.centered),
    )

    name: str | None = "RMSprop"
    rho: Share = 0.9
    momentum: Share = 0.0
    epsilon: PositiveFloat = 1e-7
    centered: bool = False
    epsilon_in_sqrt: bool = True
    classic_momentum: bool = True

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if not self.classic_momentum and not self.momentum:
            yield "classic_momentum", "is about the momentum: needs `momentum` > 0, got momentum 0"

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = self.with_decay(g, w, h)
        squared = xp.bounded(g, self.largest_gradient, tells=False)
        g = xp.bounded(g, self.largest_gradient)
        variance = s.lerp_square("velocity", squared, 1 - h.rho)
        if h.centered:
            mean = s.lerp("average_gradient", g, 1 - h.rho)
            variance = xp.maximum(variance - mean * mean, 0.0)  # rounding may leave less than 0
        inside, beside = (h.epsilon, 0.0) if h.epsilon_in_sqrt else (0.0, h.epsilon)
        root = xp.sqrt(variance + inside) + beside
        if "momentum" not in s:
            return h.lr * (g / root)
        if h.classic_momentum:
            return s.scale_add("momentum", h.momentum, h.lr * (g / root))
        return h.lr * s.scale_add("momentum", h.momentum, g / root)
