"""Stochastic gradient descent."""

from dataclasses import field

from optimization.configs.base import config_dataclass
from optimization.configs.optimizers.base import (
    OPTIMIZERS_CLS,
    PIPELINE,
    BaseOptimizerConfig,
    ExperimentalConfig,
    KerasOptimizerConfig,
)
from optimization.configs.types import (
    Decay,
    FirstSteps,
    NonNegativeFloat,
    Patterns,
)


@OPTIMIZERS_CLS.register("sgd", "keras.optimizers:SGD", torch="optimization.torch.recipes:sgd")
@config_dataclass
class SGDConfig(BaseOptimizerConfig):
    """Stochastic gradient descent, with momentum (v = momentum * v - lr * g; w += v).

    Attributes:
        decay: Inverse time decay: the learning rate at step t is divided by 1 + decay * t.
        nesterov: Whether the gradient is taken ahead of the step (Nesterov 1983).
        momentum: In [0, 1).
    """

    name: str | None = "SGD"
    decay: NonNegativeFloat = field(default=0.0, metadata=PIPELINE)
    nesterov: bool = False
    momentum: Decay = 0.0


@OPTIMIZERS_CLS.register(
    "sgd_experimental", "keras.optimizers:SGD", torch="optimization.torch.recipes:sgd"
)
@config_dataclass
class SGDExperimentalConfig(ExperimentalConfig, KerasOptimizerConfig):
    """`sgd` under Keras' names."""

    name: str | None = "SGD"
    nesterov: bool = False
    momentum: Decay = 0.0


@OPTIMIZERS_CLS.register(
    "sgd_torch",
    "optimization.optimizers.sgd_torch:SGDTorch",
    torch="optimization.torch.recipes:sgd_torch",
)
@config_dataclass
class SGDTorchConfig(BaseOptimizerConfig):
    """SGD as PyTorch has it, the way Model Garden's YOLO uses it.

    Attributes:
        decay: As for `sgd`.
        nesterov: As for `sgd`.
        momentum_start: The momentum at step 0.
        momentum: The momentum from step `warmup_steps` on.
        warmup_steps: Over how many steps the momentum grows linearly; 0 for none.
        weight_decay: Added to the gradient, times the weight, of the variables that
            `weight_keys` match.
        weight_keys: Regular expressions for the paths of weights.
        bias_keys: Regular expressions for the paths of biases, among what is no weight: for code
            that gives these a rate of their own, `bias_learning_rate` of the Keras optimizer, or
            their group in PyTorch. By a config alone, `param_groups` does that.
    """

    name: str | None = "SGD"
    decay: NonNegativeFloat = field(default=0.0, metadata=PIPELINE)
    nesterov: bool = False
    momentum_start: Decay = 0.0
    momentum: Decay = 0.9
    warmup_steps: FirstSteps = 0
    weight_decay: NonNegativeFloat = 0.0
    weight_keys: Patterns | None = ("kernel", "weight")
    bias_keys: Patterns | None = ("bias", "beta")

    def own_schedules(self) -> dict[str, str]:
        """Returns what the warmup of the momentum changes."""
        return {"momentum": "warmup_steps"} if self.warmup_steps else {}

    def numbers(self) -> list[str]:
        """Returns the arguments that can change, which where the momentum starts can't."""
        return [name for name in super().numbers() if name != "momentum_start"]
