"""Adafactor, with T5X's and with Keras' hyperparameters."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Lt

from optimization.configs.optimizers.base import (
    OPTIMIZERS_CLS,
    BaseOptimizerConfig,
)
from optimization.configs.types import (
    Decay,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Regex,
)


@OPTIMIZERS_CLS.register("adafactor", "optimization.optimizers.adafactor:Adafactor")
@dataclasses.dataclass
class AdafactorConfig(BaseOptimizerConfig):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), with T5X's hyperparameters.

    Attributes:
        factored: Whether second moments are kept as row and column means where possible.
        multiply_by_parameter_scale: Whether the rate is relative to the weights' root mean square.
        beta1: The decay of the momentum; None for no momentum.
        decay_rate: Second moments decay by 1 - t ** -decay_rate.
        step_offset: Subtracted from the step in that formula, for fine-tuning.
        clipping_threshold: Of the update's root mean square; None for no clipping.
        min_dim_size_to_factor: Only where both of the two largest dimensions are at least this.
        epsilon1: Added to the squared gradient.
        epsilon2: The least parameter scale.
        weight_decay: w -= weight_decay * w at each step (not times the rate); None for none.
        include_in_weight_decay: A regular expression for the paths that decay; None for all.
    """

    name: str | None = "Adafactor"
    factored: bool = True
    multiply_by_parameter_scale: bool = True
    beta1: Decay | None = None
    decay_rate: PositiveFloat = 0.8
    step_offset: NonNegativeInt = 0
    clipping_threshold: PositiveFloat | None = 1.0
    min_dim_size_to_factor: PositiveInt = 128
    epsilon1: PositiveFloat = 1e-30
    epsilon2: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat | None = None
    include_in_weight_decay: Regex | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields also: patterns without decay."""
        yield from super().check()
        if self.include_in_weight_decay is not None and not self.weight_decay:
            yield "include_in_weight_decay", "needs `weight_decay` > 0"


@OPTIMIZERS_CLS.register(
    "adafactor_keras", "optimization.optimizers.adafactor_keras:AdafactorKeras"
)
@dataclasses.dataclass
class AdafactorKerasConfig(BaseOptimizerConfig):
    """Adafactor with Keras' hyperparameters.

    Attributes:
        learning_rate: Stands in Model Garden's section and was never read: the rate is that of
            the `learning_rate` section. Any other value than the default is refused.
        beta_2_decay: Second moments decay by 1 - t ** beta_2_decay; below 0.
        epsilon_1: Added to the squared gradient.
        epsilon_2: The least parameter scale.
        clip_threshold: Of the update's root mean square.
        relative_step: Whether a constant learning rate is capped by 1 / sqrt(t).
    """

    name: str | None = "Adafactor"
    learning_rate: PositiveFloat = 0.001
    beta_2_decay: Annotated[float, Lt(0)] = -0.8
    epsilon_1: PositiveFloat = 1e-30
    epsilon_2: PositiveFloat = 1e-3
    clip_threshold: PositiveFloat = 1.0
    relative_step: bool = True

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields also: a learning rate that would be ignored."""
        yield from super().check()
        if self.learning_rate != 0.001:
            message = "the rate is set by the `learning_rate` section: use its type `constant`"
            yield "learning_rate", message

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the class; the factory supplies the learning rate."""
        return {k: v for k, v in super().arguments().items() if k != "learning_rate"}
