"""Stochastic gradient descent, as Keras has it and as PyTorch does."""

from collections.abc import Callable, Sequence, Set
from dataclasses import field, replace
from typing import Any, ClassVar

from optimization.configs.types import FirstSteps, NonNegativeFloat, Patterns, Share
from optimization.matching.patterns import matches_any
from optimization.rules.base import OPTIMIZERS_CLS, PIPELINE, ExperimentalConfig
from optimization.rules.modifiers import COUPLED
from optimization.rules.rule import Rule, Slot, given


def _has_momentum(h: Any) -> bool:
    return given(h.momentum) or bool(vars(h).get("warmup_steps") and h.momentum_start)


class SGDFormula(Rule):
    """Stochastic gradient descent, with the forms of its momentum and of its decay."""

    usual_rate = 0.01
    elementwise = True
    torch_class = "SGD"
    variable_settings: ClassVar = {"classic_momentum": True, "decoupled_weight_decay": True}
    slots = (Slot("momentum", "momentums", "momentum_buffer", when=_has_momentum),)

    def decay_before(self, h: Any) -> Any:
        return h.weight_decay if h.decoupled_weight_decay else 0.0

    def moves_by_gradient_alone(self, h: Any) -> bool:
        return not _has_momentum(h) and not given(h.weight_decay)

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        if given(h.weight_decay) and not h.decoupled_weight_decay:
            g = xp.keep(g + h.weight_decay * w)
        if "momentum" not in s:
            return h.lr * g
        if not h.classic_momentum:
            m = s.scale_add("momentum", h.momentum, g)
            return h.lr * (g + h.momentum * m) if h.nesterov else h.lr * m
        u = xp.keep(h.lr * g)
        m = s.scale_add("momentum", h.momentum, u)
        return u + h.momentum * m if h.nesterov else m


class SGDFields(SGDFormula):
    """What `sgd` has under both its names.

    Attributes:
        momentum: The share of the last step in the next; 0 for none.
        nesterov: Whether the gradient is taken ahead of the step (Nesterov 1983).
    """

    class_name = "SGD"
    torch_note = "no momentum, no decay"
    native_note = "the rate inside the momentum"
    torch_lacks = ("momentum", "nesterov", "weight_decay")  # of another form
    # Keras adds it.
    slots = (replace(SGDFormula.slots[0], negative=True),)

    momentum: Share = 0.0
    nesterov: bool = False


@OPTIMIZERS_CLS.register("sgd")
class SGDConfig(SGDFields):
    """Stochastic gradient descent, with momentum.

    With g the gradient, mu = `momentum`, t the updates done and lr <- lr / (1 + decay * t):

        w <- w - lr g                                   mu = 0
        v <- mu v - lr g;  w <- w + v                   mu > 0
        v <- mu v - lr g;  w <- w + mu v - lr g         `nesterov`

    Source: Robbins and Monro 1951, doi:10.1214/aoms/1177729586; the momentum as in Keras' SGD.

    Attributes:
        decay: Inverse time decay, per update: the learning rate at step t is divided by 1 +
            decay * t.
    """

    name: str | None = "SGD"
    decay: NonNegativeFloat = field(default=0.0, metadata=PIPELINE)


@OPTIMIZERS_CLS.register("sgd_experimental")
class SGDExperimentalConfig(ExperimentalConfig, SGDFields):
    """`sgd` under Keras' names, without `decay`.

        v <- momentum v - lr g;  w <- w + v             `nesterov`: w + momentum v - lr g

    Source: Robbins and Monro 1951, doi:10.1214/aoms/1177729586; as in Keras' SGD.
    """

    name: str | None = "SGD"


@OPTIMIZERS_CLS.register("sgd_torch")
class SGDTorchConfig(SGDFormula):
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

    class_name = "SGDTorch"
    torch_note = "no `warmup_steps`"
    native_note = "the momentum may start from 0"
    argument_order = (
        *("momentum", "momentum_start", "warmup_steps"),
        *("nesterov", "weight_decay", "weight_keys"),
    )
    variable_settings: ClassVar = {**dict.fromkeys(SGDFormula.variable_settings, False), "kind": ""}
    own_rates: ClassVar = {"bias": "bias_learning_rate", "other": "other_learning_rate"}
    not_native = ("momentum_start", "warmup_steps")  # `curves` has them
    fixed_numbers = ("momentum_start",)
    unmodifiable = COUPLED

    name: str | None = "SGD"
    decay: NonNegativeFloat = field(default=0.0, metadata=PIPELINE)
    nesterov: bool = False
    momentum_start: Share = 0.0
    momentum: Share = 0.9
    warmup_steps: FirstSteps = 0
    weight_decay: NonNegativeFloat = 0.0
    weight_keys: Patterns | None = ("kernel", "weight")
    bias_keys: Patterns | None = ("bias", "beta")

    def own_schedules(self) -> dict[str, str]:
        return {"momentum": "warmup_steps"} if self.warmup_steps else {}

    def decays(self, path: str) -> bool:
        return matches_any(path, self.weight_keys)

    def settings(self, path: str, shape: Sequence[int]) -> dict[str, Any]:
        if self.decays(path):
            return {}
        return {"kind": "bias" if matches_any(path, self.bias_keys) else "other"}

    def curves(self) -> dict[str, Callable[[Any, Any], Any]]:
        if not self.warmup_steps:
            return {}

        def momentum(done: Any, xp: Any) -> Any:
            progress = xp.minimum(done / self.warmup_steps, 1.0)
            return self.momentum_start + (self.momentum - self.momentum_start) * progress

        return {"momentum": momentum}

    def is_torchs(self, changing: Set[str]) -> bool:
        # The momentum may not grow from 0, which torch takes for none.
        return "momentum" not in changing and not self.warmup_steps
