"""The optimizers that scale the update of each layer: LAMB and LARS."""

from typing import ClassVar

from optimization.configs.base import Config, config_dataclass
from optimization.configs.optimizers.adam import AdamFields
from optimization.configs.optimizers.base import (
    OPTIMIZERS_CLS,
    BaseOptimizerConfig,
)
from optimization.configs.types import (
    Decay,
    NonNegativeFloat,
    Patterns,
    PositiveFloat,
)


@config_dataclass
class LayerAdaptationFields(Config):
    """What LAMB and LARS share.

    Attributes:
        weight_decay_rate: Times the weight, part of the update that is scaled for each layer. At
            most one of it and `weight_decay`, which acts before that update, may be set.
        exclude_from_weight_decay: Regular expressions for the paths that do not decay.
        exclude_from_layer_adaptation: Regular expressions for the paths that are not scaled;
            None for the same as `exclude_from_weight_decay`.
    """

    decay_argument: ClassVar[str] = "weight_decay_rate"

    weight_decay_rate: NonNegativeFloat = 0.0
    exclude_from_weight_decay: Patterns | None = None
    exclude_from_layer_adaptation: Patterns | None = None


@OPTIMIZERS_CLS.register(
    "lamb", "optimization.optimizers.lamb:LAMB", torch="optimization.torch.recipes:lamb"
)
@config_dataclass
class LAMBConfig(LayerAdaptationFields, AdamFields, BaseOptimizerConfig):
    """LAMB: Adam's step, scaled for each layer to a part of the weights' norm.

    With m^ and v^ the moments of the gradient, corrected for their start from zero:

        u = m^ / (sqrt(v^) + epsilon) + weight_decay_rate * w
        w <- w - lr * |w| / |u| * u                  the ratio is 1 where a norm is 0

    Source: You et al. 2020, arXiv:1904.00962.
    """

    name: str | None = "LAMB"
    epsilon: PositiveFloat = 1e-6


@OPTIMIZERS_CLS.register(
    "lars", "optimization.optimizers.lars:LARS", torch="optimization.torch.recipes:lars"
)
@config_dataclass
class LARSConfig(LayerAdaptationFields, BaseOptimizerConfig):
    """LARS: momentum whose rate is scaled for each layer to a part of the weights' norm.

    With g <- g + weight_decay_rate * w, mu the momentum and ratio(x) = eeta * |w| / |x|, which is 1
    where a norm is 0:

        v <- mu v + lr * ratio(g) * g;  w <- w - v           nesterov: mu v + lr * ratio(g) * g
        v <- mu v + g;  w <- w - lr * ratio(v) * v           without `classic_momentum`

    Source: You et al. 2017, arXiv:1708.03888.

    Attributes:
        eeta: The trust coefficient.
        classic_momentum: Whether the learning rate is applied before the momentum, as in the
            paper, or after it.
        momentum: The share of the last step in the next; 0 for none.
        nesterov: Whether the gradient is taken ahead of the step (Nesterov 1983).
    """

    name: str | None = "LARS"
    momentum: Decay = 0.9
    eeta: PositiveFloat = 0.001
    nesterov: bool = False
    classic_momentum: bool = True
