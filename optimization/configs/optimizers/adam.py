"""Adam and what derives from it."""

from collections.abc import Iterator
from dataclasses import field
from typing import Any, ClassVar, Literal

from optimization.configs.base import Config, config_dataclass
from optimization.configs.optimizers.base import (
    OPTIMIZERS_CLS,
    PIPELINE,
    BaseOptimizerConfig,
    ExperimentalConfig,
    KerasOptimizerConfig,
)
from optimization.configs.types import (
    Decay,
    NonNegativeFloat,
    Patterns,
    PositiveFloat,
)


@config_dataclass
class AdamFields(Config):
    """The hyperparameters of Adam.

    Attributes:
        beta_1: The decay of the first moment, the mean of the gradient.
        beta_2: The decay of the second moment, the mean of its square.
        epsilon: Keeps the divisor from 0.
    """

    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-7


@config_dataclass
class AdamForms(AdamFields):
    """Adam's hyperparameters, and the forms in which its implementations differ.

    Attributes:
        amsgrad: Whether to use the AMSGrad variant (Reddi et al. 2018).
        correct_bias: Whether the moments are corrected for their start from zero. BERT was trained
            without: a step is learning_rate * m / (sqrt(v) + epsilon).
        epsilon_placement: The root to which epsilon is added: that of the `uncorrected` second
            moment, as in Keras, TensorFlow and transformers, or that of the `corrected` one, as in
            PyTorch and optax.
    """

    amsgrad: bool = False
    correct_bias: bool = True
    epsilon_placement: Literal["uncorrected", "corrected"] = "uncorrected"

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields also: epsilon at a corrected moment where none is corrected."""
        yield from super().check()
        if self.epsilon_placement == "corrected" and not self.correct_bias:
            yield "epsilon_placement", "cannot be 'corrected' without `correct_bias`"


@OPTIMIZERS_CLS.register(
    "adam", "optimization.optimizers.adam:Adam", torch="optimization.torch.recipes:adam"
)
@config_dataclass
class AdamConfig(AdamForms, BaseOptimizerConfig):
    """Adam: the mean of the gradient over the root of the mean of its square.

    With t the updates, this one included, g the gradient, c1 = 1 - beta_1^t, c2 = 1 - beta_2^t:

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    `uncorrected` epsilon
        w <- w - lr * (m / c1) / (sqrt(v / c2) + epsilon)        `corrected` epsilon

    Without `correct_bias`, c1 = c2 = 1; with `amsgrad`, the largest v so far stands for v.

    Source: Kingma and Ba 2015, arXiv:1412.6980.
    """

    name: str | None = "Adam"


@OPTIMIZERS_CLS.register(
    "adam_experimental",
    "optimization.optimizers.adam:Adam",
    torch="optimization.torch.recipes:adam",
)
@config_dataclass
class AdamExperimentalConfig(AdamForms, ExperimentalConfig, KerasOptimizerConfig):
    """`adam` under Keras' names.

    With t the updates, this one included, g the gradient, c1 = 1 - beta_1^t, c2 = 1 - beta_2^t:

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    `uncorrected` epsilon
        w <- w - lr * (m / c1) / (sqrt(v / c2) + epsilon)        `corrected` epsilon

    Without `correct_bias`, c1 = c2 = 1; with `amsgrad`, the largest v so far stands for v.

    Source: Kingma and Ba 2015, arXiv:1412.6980; the names as in Keras' Adam.
    """

    name: str | None = "Adam"


@OPTIMIZERS_CLS.register(
    "adamw",
    "optimization.optimizers.adam_weight_decay:AdamWeightDecay",
    torch="optimization.torch.recipes:adam",
)
@config_dataclass
class AdamWeightDecayConfig(AdamForms, BaseOptimizerConfig):
    """BERT's Adam with decoupled weight decay.

    With t the updates, this one included, g the gradient, c1 = 1 - beta_1^t, c2 = 1 - beta_2^t:

        w <- w - lr * weight_decay_rate * w      `before` the following, or `after` it
        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    `uncorrected` epsilon
        w <- w - lr * (m / c1) / (sqrt(v / c2) + epsilon)        `corrected` epsilon

    Without `correct_bias`, c1 = c2 = 1; with `amsgrad`, the largest v so far stands for v.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101; Devlin et al. 2019, arXiv:1810.04805.

    Attributes:
        weight_decay_rate: At each update, w -= learning_rate * weight_decay_rate * w.
        weight_decay: Keras' name for the same; at most one of the two may be set.
        weight_decay_order: Whether the weights decay `before` the step, or `after` it, as in
            the AdamW of transformers up to 4.49.
        include_in_weight_decay: Regular expressions, searched for in a variable's path; where
            one matches, the variable decays even if it is excluded. Alone it means "only
            these".
        exclude_from_weight_decay: Regular expressions for the variables that do not decay.
        gradient_clip_norm: A clip of the norm over all gradients, 0 for none. It acts first,
            before any of the other clips.
    """

    decay_argument: ClassVar[str] = "weight_decay_rate"

    name: str | None = "AdamWeightDecay"
    weight_decay_rate: NonNegativeFloat = 0.0
    weight_decay_order: Literal["before", "after"] = "before"
    include_in_weight_decay: Patterns | None = None
    exclude_from_weight_decay: Patterns | None = None
    gradient_clip_norm: NonNegativeFloat = field(default=1.0, metadata=PIPELINE)

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the class, which has one name for the decay."""
        values = super().arguments()
        rate = values.pop("weight_decay", None) or self.weight_decay_rate
        return {**values, "weight_decay_rate": rate}

    def _decays_outside(self) -> bool:
        return False


@OPTIMIZERS_CLS.register(
    "adamw_experimental",
    "optimization.optimizers.adam:Adam",
    torch="optimization.torch.recipes:adam",
)
@config_dataclass
class AdamWeightDecayExperimentalConfig(AdamForms, ExperimentalConfig, KerasOptimizerConfig):
    """AdamW under Keras' names.

    With t the updates, this one included, g the gradient, c1 = 1 - beta_1^t, c2 = 1 - beta_2^t:

        w <- w - lr * weight_decay * w           before the following
        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    `uncorrected` epsilon
        w <- w - lr * (m / c1) / (sqrt(v / c2) + epsilon)        `corrected` epsilon

    Without `correct_bias`, c1 = c2 = 1; with `amsgrad`, the largest v so far stands for v.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101; the names as in Keras' AdamW.

    Attributes:
        global_clipnorm: 1.0 unless set otherwise; set it to null to use another kind of clip.
    """

    name: str | None = "AdamWeightDecayExperimental"
    weight_decay: NonNegativeFloat | None = 0.0
    global_clipnorm: PositiveFloat | None = field(default=1.0, metadata=PIPELINE)


@OPTIMIZERS_CLS.register(
    "adamax", "optimization.optimizers.adamax:Adamax", torch="optimization.torch.recipes:adamax"
)
@config_dataclass
class AdamaxConfig(AdamFields, KerasOptimizerConfig):
    """Adamax, Adam with the infinity norm.

    With t the updates, this one included:

        m <- beta_1 m + (1 - beta_1) g
        u <- max(beta_2 u, |g|);            w <- w - lr / (1 - beta_1^t) * m / (u + epsilon)
        u <- max(beta_2 u, |g| + epsilon);  w <- w - lr / (1 - beta_1^t) * m / u

    the second with `epsilon_in_norm`.

    Source: Kingma and Ba 2015, arXiv:1412.6980, section 7.1.

    Attributes:
        epsilon_in_norm: Whether epsilon is added to the gradient's part in the norm, as in
            PyTorch, or to the norm where it divides, as in Keras and TensorFlow.
    """

    name: str | None = "Adamax"
    epsilon_in_norm: bool = False


@OPTIMIZERS_CLS.register(
    "nadam", "optimization.optimizers.nadam:Nadam", torch="optimization.torch.recipes:nadam"
)
@config_dataclass
class NadamConfig(AdamFields, KerasOptimizerConfig):
    """Nadam, Adam with Nesterov momentum.

    With t the updates, this one included, and mu_t = beta_1 (1 - 0.96^(t * momentum_decay) / 2):

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        n = mu_(t+1) m / (1 - mu_1 ... mu_(t+1)) + (1 - mu_t) g / (1 - mu_1 ... mu_t)
        w <- w - lr * n / (sqrt(v / (1 - beta_2^t)) + epsilon)

    Source: Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

    Attributes:
        momentum_decay: At step t the momentum is beta_1 * (1 - 0.96^(t * momentum_decay) / 2):
            1 in Keras, 0.004 in PyTorch unless set otherwise.
    """

    name: str | None = "Nadam"
    momentum_decay: NonNegativeFloat = 1.0
