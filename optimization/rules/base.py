"""What the optimizer sections share, and their registry.

Names and defaults are those of Model Garden 2.20, so that its files load unchanged. A field marked
by `PIPELINE` is carried out by the step that all optimizers share (`PipelineOptimizer`); all
other fields are arguments of the optimizer's class.
"""

import dataclasses
import inspect
import math
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal

from optimization import extras
from optimization.configs.base import Config
from optimization.configs.fields import Section, field
from optimization.configs.float32 import Float32Config
from optimization.configs.registry import REPLACEABLE, Entry, Registry, import_target
from optimization.configs.types import NonNegativeFloat, PositiveFloat, PositiveInt, Share, Unit
from optimization.rules.state_config import StateConfig

if typing.TYPE_CHECKING:
    from optimization.schedules import BaseLrConfig

PIPELINE = {"pipeline": True}
"""Metadata of a field that the shared step carries out, not the optimizer's own class."""

Updates = Annotated[PositiveInt, Unit("updates")]

MEANS_OF_SQUARES, SUMS_OF_SQUARES = 2.0**63, 2.0**52
"""The largest gradients of rules that keep means or sums of squares.

Float32 has less than 2**128: a mean is at most 2**126, and a sum has room for 2**24 of 2**104.
"""

CLIPS = ("clipnorm", "clipvalue", "global_clipnorm", "adaptive_clip_factor")
"""The kinds of clip, of which at most one may be set."""
ALL_CLIPS = ("gradient_clip_norm", *CLIPS)
"""These, and BERT's, which acts before them."""


class BaseOptimizerConfig(Float32Config):
    """What every optimizer section has.

    >>> OPTIMIZERS_CLS.config_class("sgd")(momentum=0.9, global_clipnorm=1.0)
    SGDConfig(global_clipnorm=1.0, momentum=0.9)

    Attributes:
        clipnorm: The gradient of each variable is scaled down to this L2 norm where it is longer.
        clipvalue: Each component of each gradient is clipped to [-clipvalue, clipvalue].
        global_clipnorm: All gradients are scaled by one factor, so that the L2 norm over all of
            them together is at most this.
        name: The name of the optimizer; it prefixes the names of its variables.
        gradient_accumulation_steps: How many gradients make one update, their mean. Schedules,
            decay, averages, clips and the iteration count see updates only.
        adaptive_clip_factor: The gradient of each unit is scaled down to this times the norm of
            the unit's weights where it is longer (Brock et al. 2021, arXiv:2102.06171). At most
            one of the four kinds of clip may be set.
        adaptive_clip_epsilon: The least norm of a unit's weights in that.
        on_nonfinite: What an infinite or NaN gradient does, or one that no clip bounds and whose
            square float32 can't hold where the optimizer keeps it: `propagate` into the weights,
            `skip` the update, or `raise` an error that names the variables. None is `skip` where
            the trainer scales the loss, since a scaled gradient may overflow, else `propagate`.
        max_consecutive_nonfinite: With `skip`, more such updates than this in a row are an error.
            None is no limit but in the trainer, which ends when 50 in a row were skipped.
        weight_decay: Before each update, w -= learning_rate * weight_decay * w. None or 0 for none.
        use_ema: Whether to keep an exponential moving average of the weights for evaluation and
            export: after the first update it is the weights, after each later one
            average = ema_momentum * average + (1 - ema_momentum) * w. An `ema` section offers more;
            at most one of the two may be used. `model.fit` ends with the average as the weights.
        ema_momentum: The share of that average that stays at each update.
        ema_overwrite_frequency: After every so many updates the weights become the average, and
            train on from there; None for never.
        loss_scale_factor: The loss is multiplied by this, and its gradients divided by it before
            anything else, so that small gradients do not vanish in float16; None for no scaling.
        state: How precisely the state is kept, such as {dtype: bfloat16}, and weights in bfloat16;
            None for float32.
        jit_compile: Whether XLA compiles updates, on TensorFlow: `auto` where that helps, inside
            of a `tf.function`; true everywhere, on one device; false nowhere. On JAX whoever
            compiles the step does it, and on PyTorch true is an error.
    """

    # The arguments of the class that decay weights, the usual one first; none for none.
    decay_arguments: ClassVar[tuple[str, ...]] = ("weight_decay",)
    # Those that are read once, at the start, though they are numbers.
    fixed_numbers: ClassVar[tuple[str, ...]] = ("initial_accumulator_value",)
    schedule_free: ClassVar[bool] = False  # whether it averages weights by itself
    divides_by_rate: ClassVar[bool] = False  # so that a rate of 0 makes weights NaN
    # Larger ones, in float32, are not finite for the check; the formula makes of them what it can.
    largest_gradient: ClassVar[float] = math.inf

    clipnorm: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    clipvalue: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    global_clipnorm: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    name: str | None = None
    gradient_accumulation_steps: Annotated[PositiveInt, Unit("gradients")] = field(
        default=1, metadata={**PIPELINE, "null": True}
    )
    adaptive_clip_factor: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    adaptive_clip_epsilon: PositiveFloat = field(default=1e-3, metadata=PIPELINE)
    on_nonfinite: Literal["propagate", "skip", "raise"] | None = field(
        default=None, metadata=PIPELINE
    )
    max_consecutive_nonfinite: Updates | None = field(default=None, metadata=PIPELINE)
    weight_decay: NonNegativeFloat | None = field(default=None, metadata=REPLACEABLE)
    use_ema: bool = field(default=False, metadata=PIPELINE)
    ema_momentum: Share = field(default=0.99, metadata=PIPELINE)
    ema_overwrite_frequency: Updates | None = field(default=None, metadata=PIPELINE)
    loss_scale_factor: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    jit_compile: bool | Literal["auto"] = field(default="auto", metadata=PIPELINE)
    state: Section[StateConfig | None] = field(default=None, metadata=PIPELINE)

    _LEFT_OUT: ClassVar[tuple[str, ...]] = ("state",)

    def check(self) -> Iterator[tuple[str, str]]:
        clips = [name for name in CLIPS if getattr(self, name)]
        if len(clips) > 1:
            message = f"at most one kind of clip may be set, got {' and '.join(clips)}"
            yield clips[-1], f"{message}; set the others to null"
        if getattr(self, "nesterov", False) and not getattr(self, "momentum", True):
            yield "nesterov", "needs `momentum` > 0, got momentum 0"
        if self.max_consecutive_nonfinite is not None and self.on_nonfinite != "skip":
            yield "max_consecutive_nonfinite", "needs `on_nonfinite: skip`"
        if self.adaptive_clip_epsilon != 1e-3 and self.adaptive_clip_factor is None:
            yield "adaptive_clip_epsilon", "needs `adaptive_clip_factor`"
        if not self.use_ema:
            for name, usual in (("ema_momentum", 0.99), ("ema_overwrite_frequency", None)):
                if getattr(self, name) != usual:
                    yield name, "needs `use_ema: true`"
        own = next(iter(self.decay_arguments), "")
        if self.weight_decay and not own:
            yield "weight_decay", "the class of this type takes none"
        elif self.weight_decay and own != "weight_decay" and getattr(self, own):
            yield "weight_decay", f"at most one of it and `{own}` may be set"

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the optimizer's class, apart from the learning rate."""
        shared = self.pipeline_fields()
        values = {n: getattr(self, n) for n in self.field_names() if n not in shared}
        if self.name is None:  # a class of the user's may do without
            del values["name"]
        usual = BaseOptimizerConfig.__dataclass_fields__["weight_decay"]
        if not self.weight_decay and self.__dataclass_fields__["weight_decay"] is usual:  # likewise
            del values["weight_decay"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def own_learning_rate(self) -> "BaseLrConfig | None":
        """Returns the learning rate of its own, beside which a section is an error, or None."""
        return None

    def own_schedules(self) -> dict[str, str]:
        """Returns the fields by which the class changes arguments itself, by argument."""
        return {}

    def numbers(self) -> list[str]:
        """Returns the arguments of the class that can change while it trains."""
        return [
            n
            for n, v in self.arguments().items()
            if (isinstance(v, float) or v is None)
            and n not in self.fixed_numbers
            and takes(self._spec_of(n).annotation, float)
        ]

    def argument_name(self, name: str) -> str | None:
        """Returns what the class calls the number `name`; None if it has none of that name."""
        if name == "weight_decay" and not self.arguments().get(name):
            return next(iter(self.decay_arguments), None)
        return name if name in (*self.numbers(), *self.clips()) else None

    def clips(self) -> list[str]:
        """Returns the clips that the section may set, which are of the whole step."""
        return [name for name in ALL_CLIPS if name in self.field_names()]

    def has_number(self, argument: str | None) -> bool:
        """Says whether a number of `argument_name` is there, and neither 0 nor None."""
        known = {**self.pipeline_arguments(), **self.arguments()}
        return bool(argument and known.get(argument))

    def largest_gradient_of(self, h: Any) -> float:
        """Returns the `largest_gradient` of a variable, given its numbers."""
        return self.largest_gradient

    def pipeline_arguments(self) -> dict[str, Any]:
        """Returns what the shared step is told, but for the average."""
        average = ("use_ema", "ema_momentum", "ema_overwrite_frequency")
        return {name: getattr(self, name) for name in self.pipeline_fields() if name not in average}

    def average_arguments(self) -> dict[str, Any] | None:
        """Returns the arguments of the average that `use_ema` asks for; None for no average."""
        if not self.use_ema:
            return None
        return {
            "average_decay": self.ema_momentum,
            "start_step": 2,  # after the first update the average is the weights
            "dynamic_decay": False,
            "overwrite_frequency": self.ema_overwrite_frequency,
            "overwrite_at_end": True,
        }

    @classmethod
    def pipeline_fields(cls) -> list[str]:
        """Returns the names of the fields that the shared step carries out."""
        return [f.name for f in dataclasses.fields(cls) if f.metadata.get("pipeline")]


def most_after(clips: Iterable[float | None], adaptive_clip_factor: float | None) -> float:
    """Returns what no gradient exceeds after clips; infinite for no bound."""
    if adaptive_clip_factor:
        return 0.0  # which is a share of the weights
    return min(filter(None, clips), default=math.inf)


def bound_before(clipped: float, largest: float) -> float:
    """Returns the bound of a gradient before clips that leave at most `clipped`; infinite for none.

    Args:
        clipped: As `most_after` has it.
        largest: The largest gradient that the rule can hold.
    """
    return math.inf if clipped <= largest else largest


def bounds_text(bounds: Iterable[float]) -> str:
    """Returns what an error says of the largest gradients there may be; "" where all may be."""
    known = sorted({bound for bound in bounds if bound < math.inf})
    if not known:
        return ""
    above = " or ".join(f"{bound:.2g}" for bound in known)
    return f"A gradient above {above} counts as infinite: float32 can't hold what is made of it. "


def takes(annotation: Any, kind: Any) -> bool:
    """Says whether a type, or a part of it, is of a kind."""
    return annotation == kind or any(takes(part, kind) for part in typing.get_args(annotation))


def _optimizer_members(decorated: Any) -> dict[str, Any]:
    """Refuses what is no optimizer; told by name, since Keras may not be imported here."""
    bases = getattr(decorated, "__mro__", ())
    if not any(b.__name__ == "BaseOptimizer" and "keras" in b.__module__ for b in bases):
        raise TypeError(
            f"{decorated!r} is not a subclass of keras.optimizers.Optimizer, nor of "
            "optimization.rules.rule.Rule, which holds a formula"
        )
    parameters = inspect.signature(decorated.__init__).parameters.values()
    takes_decay = any(p.name == "weight_decay" or p.kind is p.VAR_KEYWORD for p in parameters)
    return {} if takes_decay else {"decay_arguments": ()}


def _implementation(entry: Entry) -> type:
    """Returns the class of Keras: what is registered, or what is made of a rule."""
    if entry.target is not entry.config_class:
        return import_target(entry)
    return extras.require("optimization.keras.rule_optimizer").keras_class(entry.config_class)


OPTIMIZERS_CLS = Registry(
    "optimizer",
    BaseOptimizerConfig,
    _implementation,
    members=_optimizer_members,
    supplied=("learning_rate",),
    unavailable={
        "nadamw": "`nadamw` is `adamw` with `nesterov: true`, and for timm's and MLCommons' also "
        "`nesterov_correction: same`",
        "slide": "`slide` was never released by its authors: Model Garden has only its config",
        "vit_adamw": "`vit_adamw` is a type of Model Garden's MAE project; write `adamw`, and its "
        "layer-wise rates as a `layer_decay` section beside `optimizer`",
        "detr_adamw": "`detr_adamw` is a type of Model Garden's DETR project; write `adamw`, and "
        "its rate of the backbone as `param_groups: [{match: '^(?!.*detr)', "
        "learning_rate_multiplier: 0.1}]` beside `optimizer`",
        "sgd_accum": "`sgd_accum` is a type of Model Garden's YOLO project; write `sgd` with "
        "`gradient_accumulation_steps`",
        **{
            name: f"`{name}` is a type of Model Garden's YOLO project; write `sgd_torch`, and "
            "its `warmup_steps`, which are 1000 there unless written and 0 here"
            for name in ("sgd_dymo", "sgd_dymow", "scaled_sgd")
        },
    },
)
"""The optimizer types: a mapping from name to Keras optimizer class."""


class ExperimentalConfig(Config):
    """What differs in the `_experimental` sections: Model Garden's default.

    Attributes:
        jit_compile: As for every section, but false unless set otherwise, as in Model Garden.
    """

    jit_compile: bool | Literal["auto"] = field(default=False, metadata=PIPELINE)
