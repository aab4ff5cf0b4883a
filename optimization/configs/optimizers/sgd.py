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
    """Stochastic gradient descent, with momentum.

    With g the gradient, mu = `momentum`, t the updates done and lr <- lr / (1 + decay * t):

        w <- w - lr g                                   mu = 0
        v <- mu v - lr g;  w <- w + v                   mu > 0
        v <- mu v - lr g;  w <- w + mu v - lr g         `nesterov`

    Source: Robbins and Monro 1951, doi:10.1214/aoms/1177729586; the momentum as in Keras' SGD.

    Attributes:
        decay: Inverse time decay, per update: the learning rate at step t is divided by 1 +
            decay * t.
        nesterov: Whether the gradient is taken ahead of the step (Nesterov 1983).
        momentum: The share of the last step in the next; 0 for none.
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
    """`sgd` under Keras' names.

    With g the gradient and mu = `momentum`:

        w <- w - lr g                                   mu = 0
        v <- mu v - lr g;  w <- w + v                   mu > 0
        v <- mu v - lr g;  w <- w + mu v - lr g         `nesterov`

    Source: Robbins and Monro 1951, doi:10.1214/aoms/1177729586; as in Keras' SGD.

    Attributes:
        nesterov: Whether the gradient is taken ahead of the step (Nesterov 1983).
        momentum: The share of the last step in the next; 0 for none.
    """

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

    With g the gradient and mu the momentum:

        g <- g + weight_decay * w       of the variables that `weight_keys` match
        v <- mu v + g
        w <- w - lr v                   with `nesterov`: w - lr (g + mu v)

    Source: as in PyTorch's `torch.optim.SGD`; the groups and the warmup as in Model Garden's YOLO.

    Attributes:
        decay: Inverse time decay, per update: the learning rate at step t is divided by 1 +
            decay * t.
        nesterov: Whether the gradient is taken ahead of the step (Nesterov 1983).
        momentum_start: The momentum at step 0.
        momentum: The momentum from step `warmup_steps` on.
        warmup_steps: Over how many optimizer steps the momentum grows linearly; 0 for none.
        weight_decay: Added to the gradient, times the weight, of the variables that
            `weight_keys` match.
        weight_keys: Regular expressions for the paths of weights.
        bias_keys: Regular expressions for the paths of biases, among what is no weight: for
            code that gives these a rate of their own, `bias_learning_rate` of the Keras
            optimizer, or their group in PyTorch. By a config alone, `param_groups` does that.
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
