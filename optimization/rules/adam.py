"""Adam, and what others share with it."""

import math
from collections.abc import Iterator, Set
from typing import Any, ClassVar, Literal

from optimization.configs.types import PositiveFloat, Share
from optimization.rules.base import MEANS_OF_SQUARES, OPTIMIZERS_CLS, ExperimentalConfig
from optimization.rules.decay import DecayForms
from optimization.rules.rule import Rule, Slot

MOMENTS = (Slot("momentum", "momentums", "exp_avg"), Slot("velocity", "velocities", "exp_avg_sq"))
"""The means of the gradient and of its square."""

FIRST = ("beta_1", "beta_2", "epsilon")
"""The first arguments of the classes."""


def corrected_root(v: Any, h: Any, xp: Any) -> Any:
    """Returns the root of a second moment, corrected for its start from zero."""
    return xp.sqrt(v) / xp.sqrt(xp.one_minus_power(h.beta_2, h.t))


class AdamFields(Rule):
    """The hyperparameters of Adam.

    Attributes:
        beta_1: The decay of the first moment, the mean of the gradient.
        beta_2: The decay of the second moment, the mean of its square.
        epsilon: Keeps the divisor from 0.
    """

    largest_gradient = MEANS_OF_SQUARES

    beta_1: Share = 0.9
    beta_2: Share = 0.999
    epsilon: PositiveFloat = 1e-7


class AdamForms(DecayForms, AdamFields):
    """Adam's hyperparameters, and the forms in which its implementations differ.

    Attributes:
        amsgrad: Whether to use the AMSGrad variant (Reddi et al. 2018).
        correct_bias: Whether the moments are corrected for their start from zero. BERT was trained
            without: a step is learning_rate * m / (sqrt(v) + epsilon).
        epsilon_placement: The root to which epsilon is added: that of the `uncorrected` second
            moment, as in Keras, TensorFlow and transformers, or that of the `corrected` one, as in
            PyTorch and optax.
        nesterov: Whether the step is of the first moment as it would be after this gradient again:
            NAdamW, where the decay is decoupled. (`nadam` has a momentum that grows.)
        nesterov_correction: How that is corrected for its start from zero: as the moment of the
            `next` update, as in Dozat's paper and in optax, or as that of the `same`, as in the
            NAdamW of MLCommons and timm.
    """

    elementwise = True
    torch_class = "AdamW"
    torch_lacks = ("nesterov",)
    torch_note = (
        "`epsilon_placement: corrected`, decay `before`, no `nesterov`; `Adam` where the decay is "
        "not decoupled"
    )
    torch_kernel = "adamw"
    native_usual: ClassVar = {"epsilon": 1e-8}
    argument_order: ClassVar[tuple[str, ...]] = (*FIRST, "amsgrad", "weight_decay")
    later_arguments = (*DecayForms.later_arguments, "nesterov", "nesterov_correction")
    slots = (
        *MOMENTS,
        Slot("velocity_hat", "velocity_hats", "max_exp_avg_sq", 0.0, 1, lambda h: h.amsgrad),
    )

    amsgrad: bool = False
    correct_bias: bool = True
    epsilon_placement: Literal["uncorrected", "corrected"] = "uncorrected"
    nesterov: bool = False
    nesterov_correction: Literal["next", "same"] = "next"

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.epsilon_placement == "corrected" and not self.correct_bias:
            yield "epsilon_placement", "cannot be 'corrected' without `correct_bias`"
        if self.nesterov_correction != "next" and not (self.nesterov and self.correct_bias):
            yield "nesterov_correction", "needs `nesterov: true` and `correct_bias: true`"

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(self.with_decay(g, w, h), self.largest_gradient)
        m = s.lerp("momentum", g, 1 - h.beta_1)
        v = s.lerp_square("velocity", g, 1 - h.beta_2)
        if h.nesterov:
            m = _share_of_next(h, xp) * m + (1 - h.beta_1) * g
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

    def native_equivalent(self, changing: Set[str]) -> str:
        found = super().native_equivalent(changing)
        return found if self.decoupled_weight_decay else found.removesuffix("W")

    def kernel_arguments(self, h: Any, xp: Any) -> dict[str, Any] | None:
        if h.nesterov:
            return None
        step, epsilon = h.t, h.epsilon
        if not h.correct_bias:
            step = math.inf
        elif h.epsilon_placement == "uncorrected":  # the kernel divides the root by this one, too
            epsilon = epsilon / xp.sqrt(xp.one_minus_power(h.beta_2, step))
        return {
            **{"step": step, "lr": h.lr, "beta1": h.beta_1, "beta2": h.beta_2, "eps": epsilon},
            **{"weight_decay": getattr(h, self.decay_arguments[0]), "amsgrad": h.amsgrad},
            "decoupled": h.decoupled_weight_decay,
        }


def _share_of_next(h: Any, xp: Any) -> Any:
    """Returns the share of the first moment in the next one, corrected as it will be."""
    if not h.correct_bias or h.nesterov_correction == "same":
        return h.beta_1
    return h.beta_1 * xp.one_minus_power(h.beta_1, h.t) / xp.one_minus_power(h.beta_1, h.t + 1)


@OPTIMIZERS_CLS.register("adam")
class AdamConfig(AdamForms):
    """Adam: the mean of the gradient over the root of the mean of its square.

    With t the updates, this one included, g the gradient, c1 = 1 - beta_1^t, c2 = 1 - beta_2^t:

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    `uncorrected` epsilon
        w <- w - lr * (m / c1) / (sqrt(v / c2) + epsilon)        `corrected` epsilon

    Without `correct_bias`, c1 = c2 = 1; with `amsgrad`, the largest v so far stands for v. With
    `nesterov` a m + (1 - beta_1) g stands for m, a = beta_1 c1 / (1 - beta_1^(t+1)), or beta_1
    by `nesterov_correction`. Without `decoupled_weight_decay`, g + weight_decay w stands for g.

    Source: Kingma and Ba 2015, arXiv:1412.6980.
    """

    class_name = "Adam"

    name: str | None = "Adam"


@OPTIMIZERS_CLS.register("adam_experimental")
class AdamExperimentalConfig(ExperimentalConfig, AdamConfig):
    """`adam` under Keras' names.

        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    with the letters of `adam`

    Source: Kingma and Ba 2015, arXiv:1412.6980; the names as in Keras' Adam.
    """

    name: str | None = "Adam"
