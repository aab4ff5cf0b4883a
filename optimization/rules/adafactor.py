"""Adafactor: one section whose switches select every variant, and one with Keras' names."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Lt

from optimization.configs.errors import Problem
from optimization.configs.types import (
    Before,
    NonNegativeFloat,
    NonNegativeInt,
    Patterns,
    PositiveFloat,
    PositiveInt,
    Share,
)
from optimization.rules.adafactor_formula import AdafactorFormula
from optimization.rules.base import CLIPS, OPTIMIZERS_CLS
from optimization.rules.rule import Numbers
from optimization.rules.variants import VariantRule
from optimization.schedules.decays import RelativeStepLrConfig

OneOrMorePatterns = Annotated[
    Patterns, Before(lambda value: (value,) if isinstance(value, str) else value)
]
"""Regular expressions, searched for in a variable's path; a single one needs no list."""

_LEAST = 1.2e-38  # the least normal number of float32, rounded up
_SQUARED_IS_NONE = 1e-19  # 1e-38, its square, is about that number


@OPTIMIZERS_CLS.register("adafactor")
class AdafactorConfig(VariantRule, AdafactorFormula):
    """Adafactor in every variant that is in use.

    With t = 1, 2, ..., s = max(t - step_offset, 1) and b = min(beta_2_cap, 1 - s^-decay_rate):

        R <- b R + (1 - b) mean(g^2 + epsilon1, one axis);  C likewise over the other axis
        V = R C / mean(R)                       not factored: V <- b V + (1 - b) (g^2 + epsilon1)
        u = g / sqrt(V);  u <- u / max(1, RMS(u) / clipping_threshold)
        alpha = rho * max(RMS(w), epsilon2)     rho by `step_size`; without the scale alpha = rho
        m <- beta1 m + (1 - beta1) alpha u      without `beta1`: m = alpha u
        w <- (1 - k) w - m                      k by `weight_decay_kind`

    Settings that name a `variant` set every switch to that variant's value, except those that they
    give themselves; without one, the switches are T5X's. Later settings change single switches.

    Source: Shazeer and Stern 2018, arXiv:1804.04235; the variants as in the code that they name.

    Attributes:
        variant: Whose Adafactor it is: `paper`, `hf` (transformers), `torch`, `keras`, `optax`,
            `t5x` (and Flax), `timm` or `big_vision`, each with its own defaults.
        factored: Whether second moments are kept as row and column means where possible.
        multiply_by_parameter_scale: Whether the rate is relative to the weights' root mean
            square.
        beta1: The decay of the momentum; None for no momentum.
        decay_rate: Second moments decay by 1 - t ** -decay_rate.
        step_offset: Subtracted from the step in that formula, for fine-tuning.
        clipping_threshold: Of the update's root mean square; None for no clipping.
        min_dim_size_to_factor: Axes of fewer entries are not factored; with timm's rule, of as
            many entries too.
        epsilon1: Added to the squared gradient, or what the root of the second moment is at
            least; None, for `epsilon1_mode: clamp` alone, is the epsilon of the weights' dtype.
        epsilon2: The least parameter scale.
        weight_decay: What `weight_decay_kind` makes of it; None for none.
        include_in_weight_decay: Regular expressions, or one, for the paths that decay; None for
            all.
        step_size: What the learning rate lr makes of the step's size rho: `absolute`: lr;
            `capped`: min(lr, 1 / sqrt(t)); `relative`: min(1e-2, 1 / sqrt(t)), without a
            `learning_rate`.
        warmup_init: With `relative`, min(1e-6 * t, 1 / sqrt(t)).
        epsilon1_mode: `added` to the squared gradient, or `clamp`.
        factored_axes: `two_largest`, `last_two`, or `timm`: the first two of more than two, or
            else the last two.
        beta_2_cap: The most that second moments decay by; None for no cap.
        momentum_of: `scaled_update`: of the update times its step size; `update`: before that.
        weight_decay_kind: w -= weight_decay * w (`plain`), times the learning rate
            (`learning_rate`), or times the step's size with the parameter scale (`step_size`).
        weight_decay_first: Whether weights decay before their root mean square is taken.
        step_count: What t counts: the updates (`global`), or those in which the variable had a
            gradient (`per_parameter`).
    """

    class_name = "Adafactor"
    section_only = ("variant",)

    name: str | None = "Adafactor"
    factored: bool = True
    multiply_by_parameter_scale: bool = True
    beta1: Share | None = None
    decay_rate: PositiveFloat = 0.8
    step_offset: NonNegativeInt = 0
    clipping_threshold: PositiveFloat | None = 1.0
    min_dim_size_to_factor: PositiveInt = 128
    epsilon1: PositiveFloat | None = 1e-30
    epsilon2: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat | None = None
    include_in_weight_decay: OneOrMorePatterns | None = None
    variant: Literal["paper", "hf", "torch", "keras", "optax", "t5x", "timm", "big_vision"] = "t5x"
    step_size: Literal["absolute", "capped", "relative"] = "absolute"
    warmup_init: bool = False
    epsilon1_mode: Literal["added", "clamp"] = "added"
    factored_axes: Literal["two_largest", "last_two", "timm"] = "two_largest"
    beta_2_cap: Share | None = None
    momentum_of: Literal["scaled_update", "update"] = "scaled_update"
    weight_decay_kind: Literal["plain", "learning_rate", "step_size"] = "plain"
    weight_decay_first: bool = False
    step_count: Literal["global", "per_parameter"] = "global"

    @classmethod
    def preset(cls, variant: str, written: Mapping[str, Any] | None = None) -> dict[str, Any]:
        values = super().preset(variant, written)
        # It scales by the parameters only a rate that is relative.
        if variant == "timm" and (written or {}).get("step_size", "relative") != "relative":
            values["multiply_by_parameter_scale"] = False
        return values

    def own_learning_rate(self) -> RelativeStepLrConfig | None:
        is_relative = self.step_size == "relative"
        return RelativeStepLrConfig(warmup_init=self.warmup_init) if is_relative else None

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        problems, doubts = super().problems()
        doubts += [self._problem("advice", *advice) for advice in self._advice()]
        clips = [name for name in CLIPS if getattr(self, name)]
        if clips and (self.clipping_threshold is not None or self.step_size == "relative"):
            code = "relative-step-clipped" if self.step_size == "relative" else "clipped-twice"
            message = "Adafactor clips its update itself, by `clipping_threshold`; leave this out"
            doubts.append(self._problem(code, clips[0], message))
        return problems, doubts

    def _advice(self) -> Iterator[tuple[str, str]]:
        if self.variant != "hf":
            return
        if self.clipping_threshold is None:
            yield "clipping_threshold", "training without it is not recommended"
        if self.step_size != "relative" and self.multiply_by_parameter_scale:
            message = "with a learning rate of one's own, false is recommended"
            yield "multiply_by_parameter_scale", message

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        yield from self.impossible()
        # Switches that were changed from the variant's, and have nothing to act on.
        decays = (self.weight_decay, "`weight_decay` > 0")
        factors = (self.factored, "`factored: true`")
        needs = {
            "momentum_of": (self.beta1 is not None, "`beta1`"),
            "weight_decay_kind": decays,
            "weight_decay_first": decays,
            "factored_axes": factors,
            "min_dim_size_to_factor": factors,
            "epsilon2": (self.multiply_by_parameter_scale, "`multiply_by_parameter_scale: true`"),
        }
        if self.include_in_weight_decay is not None and not self.weight_decay:
            yield "include_in_weight_decay", "needs `weight_decay` > 0"
        usual = self.preset(self.variant)
        for name, (present, what) in needs.items():
            if not present and getattr(self, name) != usual[name]:
                yield name, f"needs {what}"

    def impossible(self) -> Iterator[tuple[str, str]]:
        """Yields contradictions of which nothing could be computed."""
        if self.warmup_init and self.step_size != "relative":
            yield "warmup_init", "needs `step_size: relative`"
        if self.weight_decay_first and self.weight_decay_kind == "step_size":
            message = "cannot be with `weight_decay_kind: step_size`, which is known only then"
            yield "weight_decay_first", message
        clamps = self.epsilon1_mode == "clamp"
        if self.epsilon1 is None and not clamps:
            yield "epsilon1", "null, the dtype's epsilon, needs `epsilon1_mode: clamp`"
        elif not clamps and self.epsilon1 is not None and self.epsilon1 < _LEAST:
            message = f"{self.epsilon1} is 0 in float32, by which a gradient of 0 is divided"
            yield "epsilon1", f"{message}: give at least {_LEAST}"
        elif clamps and self.epsilon1 is not None and self.epsilon1 < _SQUARED_IS_NONE:
            message = f"with `epsilon1_mode: clamp` it is squared, which makes {self.epsilon1} 0"
            yield "epsilon1", f"{message} in float32: give at least {_SQUARED_IS_NONE}, or null"


_PAPER = {"step_size": "relative", "factored_axes": "last_two", "min_dim_size_to_factor": 1}
_HF = {**_PAPER, "weight_decay_kind": "step_size", "step_count": "per_parameter"}
_BY_RATE = {"weight_decay_kind": "learning_rate"}
_CLAMP = {"epsilon1": None, "epsilon1_mode": "clamp"}
_DIFFERENCES: dict[str, dict[str, Any]] = {
    "paper": _PAPER,
    "hf": _HF,
    "torch": {**_HF, **_BY_RATE, **_CLAMP, "step_size": "capped"},
    "keras": {**_PAPER, **_BY_RATE, "step_size": "capped", "weight_decay_first": True},
    "optax": {},
    "t5x": {},
    "timm": {**_HF, "factored_axes": "timm", "min_dim_size_to_factor": 16},
    "big_vision": {
        **_BY_RATE,
        "multiply_by_parameter_scale": False,
        "min_dim_size_to_factor": 32,
        "beta1": 0.9,
        "momentum_of": "update",
        "beta_2_cap": 0.999,
        "clipping_threshold": None,
    },
}
AdafactorConfig.argument_order = tuple(AdafactorConfig.switches())
AdafactorConfig.variants = VARIANTS = AdafactorConfig.with_defaults(_DIFFERENCES)
"""Variant -> the value of each of Adafactor's switches, read from the code that it names:

    paper       Shazeer and Stern 2018 (arXiv:1804.04235), algorithms 4 to 6 and section 9
    hf          transformers 5.23, `transformers.optimization.Adafactor`
    torch       torch 2.13, `torch.optim.Adafactor`
    keras       Keras 3.15, `keras.optimizers.Adafactor`
    optax       optax 0.2.8, `optax.adafactor`
    t5x         T5X and Flax, `adafactor.Adafactor`; Model Garden announces its hyperparameters
    timm        timm 1.0, `timm.optim.Adafactor`
    big_vision  Big Vision (Zhai et al. 2021, arXiv:2106.04560), `scale_by_adafactor`; also
                `timm.optim.AdafactorBigVision`, which factors from 16 on and has a low-precision
                momentum
"""


@OPTIMIZERS_CLS.register("adafactor_keras")
class AdafactorKerasConfig(AdafactorFormula):
    """Adafactor with Keras' hyperparameters.

        b = 1 - t^beta_2_decay
        rho = min(lr, 1 / sqrt(t))              of a constant with `relative_step`, else lr
        R <- b R + (1 - b) mean(g^2 + epsilon_1, one axis);  C likewise over the other axis
        u = g / sqrt(R C / mean(R));  u <- u / max(1, RMS(u) / clip_threshold)
        w <- w - rho * max(RMS(w), epsilon_2) * u

    It is `adafactor` with `variant: keras`, but for the learning rate: that caps every rate, as
    Keras' code does, this caps constants, as Keras documents.

    Source: Shazeer and Stern 2018, arXiv:1804.04235; as in Keras' Adafactor.

    Attributes:
        learning_rate: Stands in Model Garden's section and was never read: the rate is that of
            the `learning_rate` section. Any other value than the default is refused.
        beta_2_decay: Second moments decay by 1 - t ** beta_2_decay; below 0.
        epsilon_1: Added to the squared gradient.
        epsilon_2: The least parameter scale.
        clip_threshold: Of the update's root mean square.
        relative_step: Whether a constant learning rate is capped by 1 / sqrt(t).
    """

    class_name = "AdafactorKeras"
    native_name = ""  # that of `adafactor` has all of it
    native_note = "`Adafactor`"
    native_arguments: ClassVar = {
        "epsilon_1": "epsilon1",
        "epsilon_2": "epsilon2",
        "clip_threshold": "clipping_threshold",
    }
    section_only = ("learning_rate",)
    # All switches but the one that is an argument here too.
    variable_settings: ClassVar = {
        k: v for k, v in VARIANTS["keras"].items() if k != "weight_decay"
    }

    name: str | None = "Adafactor"
    learning_rate: PositiveFloat = 0.001
    beta_2_decay: Annotated[float, Lt(0)] = -0.8
    epsilon_1: PositiveFloat = 1e-30
    epsilon_2: PositiveFloat = 1e-3
    clip_threshold: PositiveFloat = 1.0
    relative_step: bool = True

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.learning_rate != 0.001:
            message = "the rate is set by the `learning_rate` section: use its type `constant`"
            yield "learning_rate", message

    def switched(self, h: Numbers) -> Numbers:
        return Numbers(**{**vars(h), **keras_switches(h, h.constant_rate)})


def keras_switches(h: Any, constant_rate: bool) -> dict[str, Any]:
    """Returns the switches of `adafactor` that Keras' hyperparameters, as attributes, mean."""
    return {
        **VARIANTS["keras"],
        "weight_decay": h.weight_decay,
        "decay_rate": -h.beta_2_decay,
        "epsilon1": h.epsilon_1,
        "epsilon2": h.epsilon_2,
        "clipping_threshold": h.clip_threshold,
        "step_size": "capped" if h.relative_step and constant_rate else "absolute",
    }
