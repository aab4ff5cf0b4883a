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
    """RMSProp (Tieleman and Hinton 2012).

    Attributes:
        epsilon_in_sqrt: Whether epsilon is added to the mean of squares, as in Keras and
            TensorFlow, or to its root, as in PyTorch.
        classic_momentum: Whether the learning rate is applied before the momentum, as in Keras and
            TensorFlow, or after it, as in PyTorch. Under a constant rate it makes no difference.
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
    """Adagrad (Duchi et al. 2011).

    Attributes:
        initial_accumulator_value: What the sums of squares start from.
        epsilon_in_sqrt: Whether epsilon is added to the sum of squares, as in Keras and TensorFlow,
            or to its root, as in PyTorch.
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
    """Adadelta (Zeiler 2012, arXiv:1212.5701)."""

    name: str | None = "Adadelta"
    rho: Decay = 0.95
    epsilon: PositiveFloat = 1e-7


@OPTIMIZERS_CLS.register("ftrl", "keras.optimizers:Ftrl", torch="optimization.torch.recipes:ftrl")
@config_dataclass
class FtrlConfig(KerasOptimizerConfig):
    """FTRL-proximal (McMahan et al. 2013).

    It divides by the learning rate: a warmup has to start above 0.
    """

    divides_by_rate: ClassVar[bool] = True

    name: str | None = "Ftrl"
    learning_rate_power: Annotated[float, Lt(0)] = -0.5
    initial_accumulator_value: NonNegativeFloat = 0.1
    l1_regularization_strength: NonNegativeFloat = 0.0
    l2_regularization_strength: NonNegativeFloat = 0.0
    l2_shrinkage_regularization_strength: NonNegativeFloat = 0.0
    beta: NonNegativeFloat = 0.0
