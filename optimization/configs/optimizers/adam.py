"""Adam and what derives from it."""

import dataclasses
from dataclasses import field
from typing import Any, ClassVar

from optimization.configs.base import Config
from optimization.configs.optimizers.base import (
    OPTIMIZERS_CLS,
    PIPELINE,
    BaseOptimizerConfig,
    KerasOptimizerConfig,
)
from optimization.configs.types import (
    Decay,
    NonNegativeFloat,
    Patterns,
    PositiveFloat,
)


@dataclasses.dataclass
class AdamFields(Config):
    """The hyperparameters of Adam."""

    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-7


@OPTIMIZERS_CLS.register("adam", "keras.optimizers:Adam")
@dataclasses.dataclass
class AdamConfig(AdamFields, BaseOptimizerConfig):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Attributes:
        amsgrad: Whether to use the AMSGrad variant (Reddi et al. 2018).
    """

    name: str | None = "Adam"
    amsgrad: bool = False


@OPTIMIZERS_CLS.register("adam_experimental", "keras.optimizers:Adam")
@dataclasses.dataclass
class AdamExperimentalConfig(AdamFields, KerasOptimizerConfig):
    """`adam` under Keras' names."""

    name: str | None = "Adam"
    amsgrad: bool = False


@OPTIMIZERS_CLS.register("adamw", "optimization.optimizers.adam_weight_decay:AdamWeightDecay")
@dataclasses.dataclass
class AdamWeightDecayConfig(AdamFields, BaseOptimizerConfig):
    """BERT's Adam with decoupled weight decay.

    Attributes:
        weight_decay_rate: Before each update, w -= learning_rate * weight_decay_rate * w.
        include_in_weight_decay: Regular expressions, searched for in a variable's path; where one
            matches, the variable decays even if it is excluded. Alone it means "only these".
        exclude_from_weight_decay: Regular expressions for the variables that do not decay.
        gradient_clip_norm: A clip of the global norm, 0 for none. It acts first, before any of
            the other clips.
    """

    decay_argument: ClassVar[str] = "weight_decay_rate"

    name: str | None = "AdamWeightDecay"
    amsgrad: bool = False
    weight_decay_rate: NonNegativeFloat = 0.0
    include_in_weight_decay: Patterns | None = None
    exclude_from_weight_decay: Patterns | None = None
    gradient_clip_norm: NonNegativeFloat = field(default=1.0, metadata=PIPELINE)


@OPTIMIZERS_CLS.register("adamw_experimental", "keras.optimizers:AdamW")
@dataclasses.dataclass
class AdamWeightDecayExperimentalConfig(AdamFields, KerasOptimizerConfig):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) under Keras' names.

    Attributes:
        global_clipnorm: 1.0 unless set otherwise; set it to null to use another kind of clip.
    """

    name: str | None = "AdamWeightDecayExperimental"
    amsgrad: bool = False
    weight_decay: NonNegativeFloat | None = 0.0
    global_clipnorm: PositiveFloat | None = field(default=1.0, metadata=PIPELINE)

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the class, which takes a decay of 0 and not None."""
        return {**super().arguments(), "weight_decay": self.weight_decay or 0.0}


@OPTIMIZERS_CLS.register("adamax", "keras.optimizers:Adamax")
@dataclasses.dataclass
class AdamaxConfig(AdamFields, KerasOptimizerConfig):
    """Adamax, Adam with the infinity norm (Kingma and Ba 2015)."""

    name: str | None = "Adamax"


@OPTIMIZERS_CLS.register("nadam", "keras.optimizers:Nadam")
@dataclasses.dataclass
class NadamConfig(AdamFields, KerasOptimizerConfig):
    """Nadam, Adam with Nesterov momentum (Dozat 2015)."""

    name: str | None = "Nadam"
