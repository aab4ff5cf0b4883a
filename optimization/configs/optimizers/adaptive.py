"""The optimizers that scale each step by past gradients, without Adam's momentum."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from annotated_types import Lt

from optimization.configs.base import config_dataclass
from optimization.configs.optimizers.base import (
    OPTIMIZERS_CLS,
    BaseOptimizerConfig,
    KerasOptimizerConfig,
)
from optimization.configs.types import (
    Decay,
    NonNegativeFloat,
    PositiveFloat,
)


@OPTIMIZERS_CLS.register(
    "rmsprop", "optimization.optimizers.rmsprop:RMSprop", torch="optimization.torch.recipes:rmsprop"
)
@config_dataclass
class RMSPropConfig(BaseOptimizerConfig):
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

    name: str | None = "RMSprop"
    rho: Decay = 0.9
    momentum: Decay = 0.0
    epsilon: PositiveFloat = 1e-7
    centered: bool = False
    epsilon_in_sqrt: bool = True
    classic_momentum: bool = True

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields also: a form of momentum where there is none."""
        yield from super().check()
        if not self.classic_momentum and not self.momentum:
            yield "classic_momentum", "is about the momentum: needs `momentum` > 0, got momentum 0"


@OPTIMIZERS_CLS.register(
    "adagrad", "optimization.optimizers.adagrad:Adagrad", torch="optimization.torch.recipes:adagrad"
)
@config_dataclass
class AdagradConfig(BaseOptimizerConfig):
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

    name: str | None = "Adagrad"
    initial_accumulator_value: NonNegativeFloat = 0.1
    epsilon: PositiveFloat = 1e-7
    epsilon_in_sqrt: bool = True


@OPTIMIZERS_CLS.register(
    "adadelta", "keras.optimizers:Adadelta", torch="optimization.torch.recipes:adadelta"
)
@config_dataclass
class AdadeltaConfig(KerasOptimizerConfig):
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

    name: str | None = "Adadelta"
    rho: Decay = 0.95
    epsilon: PositiveFloat = 1e-7


@OPTIMIZERS_CLS.register("ftrl", "keras.optimizers:Ftrl", torch="optimization.torch.recipes:ftrl")
@config_dataclass
class FtrlConfig(KerasOptimizerConfig):
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

    divides_by_rate: ClassVar[bool] = True

    name: str | None = "Ftrl"
    learning_rate_power: Annotated[float, Lt(0)] = -0.5
    initial_accumulator_value: NonNegativeFloat = 0.1
    l1_regularization_strength: NonNegativeFloat = 0.0
    l2_regularization_strength: NonNegativeFloat = 0.0
    l2_shrinkage_regularization_strength: NonNegativeFloat = 0.0
    beta: NonNegativeFloat = 0.0
