"""The optimizer sections: one dataclass for each type, registered with its class.

Names and defaults are those of Model Garden 2.20, so that its files load unchanged. A field marked
by `PIPELINE` is carried out by the step that all optimizers share (`PipelineOptimizer`); all
other fields are arguments of the optimizer's class.
"""

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval, Lt

from optimization.configs.base import Config, OneOfConfig
from optimization.configs.registry import Registry, import_target
from optimization.configs.types import (
    Decay,
    FirstSteps,
    NonNegativeFloat,
    NonNegativeInt,
    Patterns,
    PositiveFloat,
    PositiveInt,
    Regex,
)

PIPELINE = {"pipeline": True}
"""Metadata of a field that the shared step carries out, not the optimizer's own class."""


@dataclasses.dataclass
class BaseOptimizerConfig(Config):
    """What every optimizer section has.

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
        on_nonfinite: What an infinite or NaN gradient does: `propagate` into the weights, `skip`
            the update, or `raise` an error that names the variables. None is `skip` where the
            trainer scales the loss, since a scaled gradient may overflow, else `propagate`.
        max_consecutive_nonfinite: With `skip`, more such updates than this in a row are an error.
    """

    decay_argument: ClassVar[str] = "weight_decay"
    divides_by_rate: ClassVar[bool] = False  # so that a rate of 0 makes weights NaN

    clipnorm: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    clipvalue: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    global_clipnorm: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    name: str | None = None
    gradient_accumulation_steps: PositiveInt = field(default=1, metadata=PIPELINE)
    adaptive_clip_factor: PositiveFloat | None = field(default=None, metadata=PIPELINE)
    adaptive_clip_epsilon: PositiveFloat = field(default=1e-3, metadata=PIPELINE)
    on_nonfinite: Literal["propagate", "skip", "raise"] | None = field(
        default=None, metadata=PIPELINE
    )
    max_consecutive_nonfinite: PositiveInt | None = field(default=None, metadata=PIPELINE)

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields contradictions: more than one clip, Nesterov without momentum."""
        kinds = ("clipnorm", "clipvalue", "global_clipnorm", "adaptive_clip_factor")
        clips = [name for name in kinds if getattr(self, name)]
        if len(clips) > 1:
            message = f"at most one kind of clip may be set, got {' and '.join(clips)}"
            yield clips[-1], f"{message}; set the others to null"
        if getattr(self, "nesterov", False) and not self.momentum:
            yield "nesterov", "needs `momentum` > 0, got momentum 0"
        if self.max_consecutive_nonfinite is not None and self.on_nonfinite != "skip":
            yield "max_consecutive_nonfinite", "needs `on_nonfinite: skip`"
        if self.adaptive_clip_epsilon != 1e-3 and self.adaptive_clip_factor is None:
            yield "adaptive_clip_epsilon", "needs `adaptive_clip_factor`"

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the optimizer's class, apart from the learning rate."""
        shared = self.pipeline_fields()
        values = {n: getattr(self, n) for n in self.field_names() if n not in shared}
        if self.name is None:  # a class of the user's may do without
            del values["name"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def numbers(self) -> list[str]:
        """Returns the arguments of the class that can change while it trains."""
        values = self.arguments().items()
        fixed = ("initial_accumulator_value",)  # read once, at the start
        return [
            n
            for n, v in values
            if (isinstance(v, float) or v is None)
            and n not in fixed
            and _takes_float(self._find_spec(n).annotation)
        ]

    def argument_name(self, name: str) -> str | None:
        """Returns what the class calls the number `name`; None if it has none of that name."""
        if name == "weight_decay":
            return self.decay_argument if hasattr(self, self.decay_argument) else None
        return name if name in self.numbers() else None

    def pipeline_arguments(self) -> dict[str, Any]:
        """Returns what the shared step is told."""
        return {name: getattr(self, name) for name in self.pipeline_fields()}

    @classmethod
    def pipeline_fields(cls) -> list[str]:
        """Returns the names of the fields that the shared step carries out."""
        return [f.name for f in dataclasses.fields(cls) if f.metadata.get("pipeline")]


def _takes_float(annotation: Any) -> bool:
    return annotation is float or any(map(_takes_float, typing.get_args(annotation)))


def _optimizer_members(decorated: Any) -> dict[str, Any]:
    """Refuses what is no optimizer; told by name, since Keras may not be imported here."""
    bases = getattr(decorated, "__mro__", ())
    if not any(b.__name__ == "BaseOptimizer" and "keras" in b.__module__ for b in bases):
        raise TypeError(f"{decorated!r} is not a subclass of keras.optimizers.Optimizer")
    return {}


OPTIMIZERS_CLS = Registry(
    "optimizer",
    BaseOptimizerConfig,
    import_target,
    members=_optimizer_members,
    supplied=("learning_rate",),
    unavailable={
        "slide": "`slide` was never released by its authors: Model Garden has only its config"
    },
)
"""The optimizer types: a mapping from name to Keras optimizer class."""

_register = OPTIMIZERS_CLS.register


@dataclasses.dataclass
class KerasOptimizerConfig(BaseOptimizerConfig):
    """What the sections with Keras' own names share.

    Attributes:
        weight_decay: Before each update, w -= learning_rate * weight_decay * w. None for none.
        jit_compile: Whether the update is compiled by XLA.
    """

    weight_decay: NonNegativeFloat | None = None
    jit_compile: bool = field(default=False, metadata=PIPELINE)

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the class; a decay of 0 is none."""
        return {**super().arguments(), "weight_decay": self.weight_decay or None}


@_register("sgd", "keras.optimizers:SGD")
@dataclasses.dataclass
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


@_register("sgd_experimental", "keras.optimizers:SGD")
@dataclasses.dataclass
class SGDExperimentalConfig(KerasOptimizerConfig):
    """`sgd` under Keras' names."""

    name: str | None = "SGD"
    nesterov: bool = False
    momentum: Decay = 0.0


@_register("sgd_torch", "optimization.optimizers.sgd_torch:SGDTorch")
@dataclasses.dataclass
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
        bias_keys: Regular expressions for the paths of biases, among what is no weight.
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


@_register("rmsprop", "keras.optimizers:RMSprop")
@dataclasses.dataclass
class RMSPropConfig(BaseOptimizerConfig):
    """RMSProp (Tieleman and Hinton 2012)."""

    name: str | None = "RMSprop"
    rho: Decay = 0.9
    momentum: Decay = 0.0
    epsilon: PositiveFloat = 1e-7
    centered: bool = False


@_register("adagrad", "keras.optimizers:Adagrad")
@dataclasses.dataclass
class AdagradConfig(BaseOptimizerConfig):
    """Adagrad (Duchi et al. 2011)."""

    name: str | None = "Adagrad"
    initial_accumulator_value: NonNegativeFloat = 0.1
    epsilon: PositiveFloat = 1e-7


@dataclasses.dataclass
class _AdamFields(Config):
    """The hyperparameters of Adam."""

    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-7


@_register("adam", "keras.optimizers:Adam")
@dataclasses.dataclass
class AdamConfig(_AdamFields, BaseOptimizerConfig):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Attributes:
        amsgrad: Whether to use the AMSGrad variant (Reddi et al. 2018).
    """

    name: str | None = "Adam"
    amsgrad: bool = False


@_register("adam_experimental", "keras.optimizers:Adam")
@dataclasses.dataclass
class AdamExperimentalConfig(_AdamFields, KerasOptimizerConfig):
    """`adam` under Keras' names."""

    name: str | None = "Adam"
    amsgrad: bool = False


@_register("adamw", "optimization.optimizers.adam_weight_decay:AdamWeightDecay")
@dataclasses.dataclass
class AdamWeightDecayConfig(_AdamFields, BaseOptimizerConfig):
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


@_register("adamw_experimental", "keras.optimizers:AdamW")
@dataclasses.dataclass
class AdamWeightDecayExperimentalConfig(_AdamFields, KerasOptimizerConfig):
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


@dataclasses.dataclass
class _LayerAdaptationFields(Config):
    """What LAMB and LARS share.

    Attributes:
        weight_decay_rate: Times the weight, part of the update that is scaled for each layer.
        exclude_from_weight_decay: Regular expressions for the paths that do not decay.
        exclude_from_layer_adaptation: Regular expressions for the paths that are not scaled;
            None for the same as `exclude_from_weight_decay`.
    """

    decay_argument: ClassVar[str] = "weight_decay_rate"

    weight_decay_rate: NonNegativeFloat = 0.0
    exclude_from_weight_decay: Patterns | None = None
    exclude_from_layer_adaptation: Patterns | None = None


@_register("lamb", "optimization.optimizers.lamb:LAMB")
@dataclasses.dataclass
class LAMBConfig(_LayerAdaptationFields, _AdamFields, BaseOptimizerConfig):
    """LAMB (You et al. 2020, arXiv:1904.00962)."""

    name: str | None = "LAMB"
    epsilon: PositiveFloat = 1e-6


@_register("lars", "optimization.optimizers.lars:LARS")
@dataclasses.dataclass
class LARSConfig(_LayerAdaptationFields, BaseOptimizerConfig):
    """LARS (You et al. 2017, arXiv:1708.03888).

    Attributes:
        eeta: The trust coefficient.
        classic_momentum: Whether the learning rate is applied before the momentum, as in the
            paper, or after it.
    """

    name: str | None = "LARS"
    momentum: Decay = 0.9
    eeta: PositiveFloat = 0.001
    nesterov: bool = False
    classic_momentum: bool = True


@_register("adafactor", "optimization.optimizers.adafactor:Adafactor")
@dataclasses.dataclass
class AdafactorConfig(BaseOptimizerConfig):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), with T5X's hyperparameters.

    Attributes:
        factored: Whether second moments are kept as row and column means where possible.
        multiply_by_parameter_scale: Whether the rate is relative to the weights' root mean square.
        beta1: The decay of the momentum; None for no momentum.
        decay_rate: Second moments decay by 1 - t ** -decay_rate.
        step_offset: Subtracted from the step in that formula, for fine-tuning.
        clipping_threshold: Of the update's root mean square; None for no clipping.
        min_dim_size_to_factor: Only where both of the two largest dimensions are at least this.
        epsilon1: Added to the squared gradient.
        epsilon2: The least parameter scale.
        weight_decay: w -= weight_decay * w at each step (not times the rate); None for none.
        include_in_weight_decay: A regular expression for the paths that decay; None for all.
    """

    name: str | None = "Adafactor"
    factored: bool = True
    multiply_by_parameter_scale: bool = True
    beta1: Decay | None = None
    decay_rate: PositiveFloat = 0.8
    step_offset: NonNegativeInt = 0
    clipping_threshold: PositiveFloat | None = 1.0
    min_dim_size_to_factor: PositiveInt = 128
    epsilon1: PositiveFloat = 1e-30
    epsilon2: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat | None = None
    include_in_weight_decay: Regex | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields also: patterns without decay."""
        yield from super().check()
        if self.include_in_weight_decay is not None and not self.weight_decay:
            yield "include_in_weight_decay", "needs `weight_decay` > 0"


@_register("adafactor_keras", "optimization.optimizers.adafactor_keras:AdafactorKeras")
@dataclasses.dataclass
class AdafactorKerasConfig(BaseOptimizerConfig):
    """Adafactor with Keras' hyperparameters.

    Attributes:
        learning_rate: Stands in Model Garden's section and was never read: the rate is that of
            the `learning_rate` section. Any other value than the default is refused.
        beta_2_decay: Second moments decay by 1 - t ** beta_2_decay; below 0.
        epsilon_1: Added to the squared gradient.
        epsilon_2: The least parameter scale.
        clip_threshold: Of the update's root mean square.
        relative_step: Whether a constant learning rate is capped by 1 / sqrt(t).
    """

    name: str | None = "Adafactor"
    learning_rate: PositiveFloat = 0.001
    beta_2_decay: Annotated[float, Lt(0)] = -0.8
    epsilon_1: PositiveFloat = 1e-30
    epsilon_2: PositiveFloat = 1e-3
    clip_threshold: PositiveFloat = 1.0
    relative_step: bool = True

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields also: a learning rate that would be ignored."""
        yield from super().check()
        if self.learning_rate != 0.001:
            message = "the rate is set by the `learning_rate` section: use its type `constant`"
            yield "learning_rate", message

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the class; the factory supplies the learning rate."""
        return {k: v for k, v in super().arguments().items() if k != "learning_rate"}


@_register("adadelta", "keras.optimizers:Adadelta")
@dataclasses.dataclass
class AdadeltaConfig(KerasOptimizerConfig):
    """Adadelta (Zeiler 2012, arXiv:1212.5701)."""

    name: str | None = "Adadelta"
    rho: Decay = 0.95
    epsilon: PositiveFloat = 1e-7


@_register("adamax", "keras.optimizers:Adamax")
@dataclasses.dataclass
class AdamaxConfig(_AdamFields, KerasOptimizerConfig):
    """Adamax, Adam with the infinity norm (Kingma and Ba 2015)."""

    name: str | None = "Adamax"


@_register("nadam", "keras.optimizers:Nadam")
@dataclasses.dataclass
class NadamConfig(_AdamFields, KerasOptimizerConfig):
    """Nadam, Adam with Nesterov momentum (Dozat 2015)."""

    name: str | None = "Nadam"


@_register("ftrl", "keras.optimizers:Ftrl")
@dataclasses.dataclass
class FtrlConfig(KerasOptimizerConfig):
    """FTRL-proximal (McMahan et al. 2013).

    It divides by the learning rate: a warmup has to start above 0.
    """

    divides_by_rate: ClassVar[bool] = True

    name: str | None = "Ftrl"
    learning_rate_power: Annotated[float, Lt(0)] = -0.5
    initial_accumulator_value: NonNegativeFloat = 0.1
    l1_regularization_strength: NonNegativeFloat = 0.0
    l2_regularization_strength: NonNegativeFloat = 0.0
    l2_shrinkage_regularization_strength: NonNegativeFloat = 0.0
    beta: NonNegativeFloat = 0.0


@_register("lion", "keras.optimizers:Lion")
@dataclasses.dataclass
class LionConfig(KerasOptimizerConfig):
    """Lion (Chen et al. 2023, arXiv:2302.06675)."""

    name: str | None = "Lion"
    beta_1: Annotated[float, Interval(gt=0, lt=1)] = 0.9
    beta_2: Decay = 0.99


@_register("muon", "keras.optimizers:Muon")
@dataclasses.dataclass
class MuonConfig(KerasOptimizerConfig):
    """Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982).

    Matrices are updated by Muon, all else, and embeddings, by AdamW.

    Attributes:
        weight_decay: For the variables that Muon updates.
        adam_weight_decay: For the variables that AdamW updates.
        exclude_layers: Regular expressions for the paths of matrices that AdamW updates.
        exclude_embeddings: Whether AdamW updates the matrices with "embedding" in their path.
        muon_a: The first coefficient of the Newton-Schulz iteration.
        muon_b: The second coefficient.
        muon_c: The third coefficient.
        adam_lr_ratio: AdamW's learning rate over Muon's.
        ns_steps: The number of Newton-Schulz iterations.
        rms_rate: Muon's update is scaled by rms_rate * sqrt(max(rows, columns)); None for no
            scaling.
    """

    name: str | None = "Muon"
    weight_decay: NonNegativeFloat | None = 0.004
    adam_beta_1: Decay = 0.9
    adam_beta_2: Decay = 0.999
    adam_weight_decay: NonNegativeFloat | None = 0.004
    epsilon: PositiveFloat = 1e-7
    exclude_layers: Patterns | None = None
    exclude_embeddings: bool = True
    muon_a: float = 3.4445
    muon_b: float = -4.7750
    muon_c: float = 2.0315
    adam_lr_ratio: PositiveFloat = 1.0
    momentum: Decay = 0.95
    ns_steps: PositiveInt = 5
    nesterov: bool = True
    rms_rate: PositiveFloat | None = 0.2


@dataclasses.dataclass
class EMAConfig(Config):
    """An exponential moving average of the weights, for evaluation and export.

    After update n (counted from 1) average += (1 - d) * (weight - average); the average starts
    from the weights.

    Attributes:
        name: The name of the average; it prefixes the names of its variables.
        trainable_weights_only: Whether batch normalization's statistics and the like are left out.
        average_decay: The decay d, in [0, 1).
        start_step: Before this many updates the average is the weights themselves.
        dynamic_decay: Whether d grows as (1 + m) / (10 + m) up to `average_decay`, where
            m = n - start_step.
        clipnorm: Stands in Model Garden's section and was never read: an average clips nothing.
            Null is all that is accepted.
        clipvalue: Likewise.
        global_clipnorm: Likewise.
    """

    clipnorm: None = None
    clipvalue: None = None
    global_clipnorm: None = None
    name: str = "ExponentialMovingAverage"
    trainable_weights_only: bool = True
    average_decay: Decay = 0.99
    start_step: FirstSteps = 0
    dynamic_decay: bool = True

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the average."""
        return {k: v for k, v in self.as_dict().items() if "clip" not in k}


@dataclasses.dataclass
class OptimizerConfig(OneOfConfig):
    """The optimizer: `type`, and the section of that name."""

    registry = OPTIMIZERS_CLS
