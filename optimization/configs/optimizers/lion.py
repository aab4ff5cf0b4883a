"""Lion."""

from typing import Annotated

from annotated_types import Interval

from optimization.configs.base import config_dataclass
from optimization.configs.optimizers.base import (
    OPTIMIZERS_CLS,
    KerasOptimizerConfig,
)
from optimization.configs.types import (
    Decay,
)


@OPTIMIZERS_CLS.register("lion", "keras.optimizers:Lion", torch="optimization.torch.recipes:lion")
@config_dataclass
class LionConfig(KerasOptimizerConfig):
    """Lion (Chen et al. 2023, arXiv:2302.06675)."""

    name: str | None = "Lion"
    beta_1: Annotated[float, Interval(gt=0, lt=1)] = 0.9
    beta_2: Decay = 0.99
