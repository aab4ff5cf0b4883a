"""AdamW: Adam with the weight decay of BERT."""

from collections.abc import Iterator, Set
from dataclasses import field
from typing import Any, Literal

from optimization.configs.types import NonNegativeFloat, Patterns, PositiveFloat
from optimization.rules.adam import FIRST, AdamConfig, AdamForms
from optimization.rules.base import OPTIMIZERS_CLS, PIPELINE, ExperimentalConfig
from optimization.rules.rule import given


@OPTIMIZERS_CLS.register("adamw")
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
    elementwise = True
    torch_class = "AdamW"
    torch_kernel = "adamw"
    argument_order = (
        *(*FIRST, "amsgrad", "weight_decay_rate"),
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

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.weight_decay_order == "after" and not self.decoupled_weight_decay:
            yield "weight_decay_order", "cannot be 'after' without `decoupled_weight_decay`"

    def decay_before(self, h: Any) -> Any:
        return super().decay_before(h) if h.weight_decay_order == "before" else 0.0

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        u = super().step(g, w, s, h, xp)
        if h.weight_decay_order == "before" or not given(h.weight_decay_rate):
            return u
        u = xp.keep(h.modified(u, h.lr))
        return u + h.lr * h.weight_decay_rate * h.decay(w - u, u)

    def kernel_arguments(self, h: Any, xp: Any) -> dict[str, Any] | None:
        decays_after = h.weight_decay_order == "after" and given(h.weight_decay_rate)
        return None if decays_after else super().kernel_arguments(h, xp)

    def is_torchs(self, changing: Set[str]) -> bool:
        return self.weight_decay_order == "before" and super().is_torchs(changing)


@OPTIMIZERS_CLS.register("adamw_experimental")
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
