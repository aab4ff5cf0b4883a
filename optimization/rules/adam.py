"""Adam, with decoupled weight decay, the infinity norm, or Nesterov momentum."""

from collections.abc import Iterator, Set
from dataclasses import field
from typing import Any, ClassVar, Literal

from optimization.configs.base import config_dataclass
from optimization.configs.types import Decay, NonNegativeFloat, Patterns, PositiveFloat
from optimization.matching.patterns import matches_any
from optimization.rules.base import OPTIMIZERS_CLS, PIPELINE, ExperimentalConfig
from optimization.rules.rule import Rule, Slot, given

MOMENTS = (Slot("momentum", "momentums", "exp_avg"), Slot("velocity", "velocities", "exp_avg_sq"))
"""The means of the gradient and of its square."""

_FIRST = ("beta_1", "beta_2", "epsilon")


def corrected_root(v: Any, h: Any, xp: Any) -> Any:
    """Returns the root of a second moment, corrected for its start from zero."""
    return xp.sqrt(v) / xp.sqrt(xp.one_minus_power(h.beta_2, h.t))


@config_dataclass
class AdamFields(Rule):
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

    elementwise = True
    torch_class = "AdamW"
    native_usual: ClassVar = {"epsilon": 1e-8}
    argument_order: ClassVar[tuple[str, ...]] = (*_FIRST, "amsgrad", "weight_decay")
    slots = (
        *MOMENTS,
        Slot("velocity_hat", "velocity_hats", "max_exp_avg_sq", 0.0, 1, lambda h: h.amsgrad),
    )

    amsgrad: bool = False
    correct_bias: bool = True
    epsilon_placement: Literal["uncorrected", "corrected"] = "uncorrected"

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.epsilon_placement == "corrected" and not self.correct_bias:
            yield "epsilon_placement", "cannot be 'corrected' without `correct_bias`"

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        m = s.lerp("momentum", g, 1 - h.beta_1)
        v = s.lerp_square("velocity", g, 1 - h.beta_2)
        if h.amsgrad:
            v = s.velocity_hat = xp.maximum(s.velocity_hat, v)
        rate, epsilon = h.lr, h.epsilon
        if h.correct_bias:
            root = xp.sqrt(xp.one_minus_power(h.beta_2, h.t))
            rate = rate * root / xp.one_minus_power(h.beta_1, h.t)
            if h.epsilon_placement == "corrected":
                epsilon = epsilon * root
        return rate * (m / (xp.sqrt(v) + epsilon))

    def is_torchs(self, changing: Set[str]) -> bool:
        return self.epsilon_placement == "corrected"


@OPTIMIZERS_CLS.register("adam")
@config_dataclass
class AdamConfig(AdamForms):
    """Adam: the mean of the gradient over the root of the mean of its square.

    With t the updates, this one included, g the gradient, c1 = 1 - beta_1^t, c2 = 1 - beta_2^t:

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    `uncorrected` epsilon
        w <- w - lr * (m / c1) / (sqrt(v / c2) + epsilon)        `corrected` epsilon

    Without `correct_bias`, c1 = c2 = 1; with `amsgrad`, the largest v so far stands for v.

    Source: Kingma and Ba 2015, arXiv:1412.6980.
    """

    class_name = "Adam"

    name: str | None = "Adam"


@OPTIMIZERS_CLS.register("adam_experimental")
@config_dataclass
class AdamExperimentalConfig(ExperimentalConfig, AdamConfig):
    """`adam` under Keras' names.

        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    with the letters of `adam`

    Source: Kingma and Ba 2015, arXiv:1412.6980; the names as in Keras' Adam.
    """

    name: str | None = "Adam"


@OPTIMIZERS_CLS.register("adamw")
@config_dataclass
class AdamWeightDecayConfig(AdamForms):
    """BERT's Adam with decoupled weight decay.

        w <- w - lr * weight_decay_rate * w      `before` the step of `adam`, or `after` it

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

    class_name = "AdamWeightDecay"
    argument_order = (
        *(*_FIRST, "amsgrad", "weight_decay_rate"),
        *("include_in_weight_decay", "exclude_from_weight_decay"),
    )
    native_name = "AdamW"
    not_native = ("weight_decay",)  # it calls `weight_decay_rate` so
    decay_arguments = ("weight_decay_rate", "weight_decay")

    name: str | None = "AdamWeightDecay"
    weight_decay_rate: NonNegativeFloat = 0.0
    weight_decay_order: Literal["before", "after"] = "before"
    include_in_weight_decay: Patterns | None = None
    exclude_from_weight_decay: Patterns | None = None
    gradient_clip_norm: NonNegativeFloat = field(default=1.0, metadata=PIPELINE)

    def arguments(self) -> dict[str, Any]:
        values = super().arguments()
        rate = values.pop("weight_decay", None) or self.weight_decay_rate
        return {**values, "weight_decay_rate": rate}

    def decay_before(self, h: Any) -> Any:
        return h.weight_decay_rate if h.weight_decay_order == "before" else 0.0

    def decays(self, path: str) -> bool:
        include, exclude = self.include_in_weight_decay, self.exclude_from_weight_decay
        spared = matches_any(path, exclude) if exclude else bool(include)
        return matches_any(path, include) or not spared

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        u = super().step(g, w, s, h, xp)
        if h.weight_decay_order == "before" or not given(h.weight_decay_rate):
            return u
        u = xp.keep(u)
        return u + h.lr * h.weight_decay_rate * (w - u)

    def is_torchs(self, changing: Set[str]) -> bool:
        return self.weight_decay_order == "before" and super().is_torchs(changing)


@OPTIMIZERS_CLS.register("adamw_experimental")
@config_dataclass
class AdamWeightDecayExperimentalConfig(ExperimentalConfig, AdamConfig):
    """AdamW under Keras' names.

        w <- w - lr * weight_decay * w      before the step of `adam`

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101; the names as in Keras' AdamW.

    Attributes:
        global_clipnorm: 1.0 unless set otherwise; set it to null to use another kind of clip.
    """

    name: str | None = "AdamWeightDecayExperimental"
    weight_decay: NonNegativeFloat | None = 0.0
    global_clipnorm: PositiveFloat | None = field(default=1.0, metadata=PIPELINE)


@OPTIMIZERS_CLS.register("adamax")
@config_dataclass
class AdamaxConfig(AdamFields):
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

    class_name = "Adamax"
    argument_order = ("beta_1", "beta_2", "epsilon", "weight_decay")
    elementwise = True
    torch_class = "Adamax"
    torch_lacks = ("weight_decay",)
    native_usual: ClassVar = {"lr": 2e-3, "epsilon": 1e-8}
    slots = (Slot("momentum", "m", "exp_avg"), Slot("norm", "u", "exp_inf"))

    name: str | None = "Adamax"
    epsilon_in_norm: bool = False

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        m = s.lerp("momentum", g, 1 - h.beta_1)
        size = xp.abs(g) + h.epsilon if h.epsilon_in_norm else xp.abs(g)
        u = s.norm = xp.maximum(h.beta_2 * s.norm, size)
        rate = h.lr / xp.one_minus_power(h.beta_1, h.t)
        return rate * (m / u) if h.epsilon_in_norm else rate * (m / (u + h.epsilon))

    def is_torchs(self, changing: Set[str]) -> bool:
        return self.epsilon_in_norm


@OPTIMIZERS_CLS.register("nadam")
@config_dataclass
class NadamConfig(AdamFields):
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

    class_name = "Nadam"
    argument_order = ("beta_1", "beta_2", "epsilon", "weight_decay")
    elementwise = True
    torch_class = "NAdam"
    native_usual: ClassVar = {"lr": 2e-3, "epsilon": 1e-8, "momentum_decay": 4e-3}
    slots = MOMENTS
    shared = (Slot("u_product", "u_product", "mu_product", start=1.0),)

    name: str | None = "Nadam"
    momentum_decay: NonNegativeFloat = 1.0

    def prepare(self, c: Any, h: Any, xp: Any) -> None:
        c.u_product = c.u_product * _momentum(h, h.t, xp)

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        m = s.lerp("momentum", g, 1 - h.beta_1)
        v = s.lerp_square("velocity", g, 1 - h.beta_2)
        now, following = _momentum(h, h.t, xp), _momentum(h, h.t + 1, xp)
        of_m = following / (1 - h.u_product * following)
        of_g = (1 - now) / (1 - h.u_product)
        return h.lr * ((of_m * m + of_g * g) / (corrected_root(v, h, xp) + h.epsilon))


def _momentum(h: Any, t: Any, xp: Any) -> Any:
    """Returns the momentum at update t."""
    return h.beta_1 * (1 - 0.5 * xp.power(0.96, h.momentum_decay * t))
