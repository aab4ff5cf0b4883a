"""Rules that give some variables settings of their own."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from optimization.configs import printing
from optimization.configs.matcher_config import MatcherConfig
from optimization.keras.inner import check_wrappable, portable
from optimization.keras.rule_optimizer import optimizer_text
from optimization.matching.patterns import as_pattern_list
from optimization.matching.rules import DEFAULT, MATCHERS, Rule
from optimization.rules.base import CLIPS
from optimization.rules.muon import MuonConfig
from optimization.schedules.scaled import rate_text


@dataclasses.dataclass(frozen=True)
class ParamGroup(Rule):
    """Variables chosen by one matcher, and what is different for them.

    Of several groups the first that matches a variable has it. Variables that none matches are
    the default group, with the settings of the optimizer itself.

    >>> ParamGroup(match="bias$", learning_rate_multiplier=2.0)
    ParamGroup(match='bias$', learning_rate_multiplier=2.0)

    Args:
        match: Regular expression searched (`re.search`) in the variable's path.
        layer_type: Name of the class of the layer that owns the variable. Needs
            `PipelineOptimizer.set_model(model)`.
        ndim: Numbers of axes, such as [0, 1] for biases and scales.
        learning_rate_multiplier: Factor on the learning rate, >= 0.
        learning_rate: A float, or a schedule of the optimizer steps, in the place of the
            optimizer's learning rate; None for that one.
        hyperparameters: Constructor arguments of its optimizer to replace, by name. "weight_decay"
            stands for `weight_decay_rate` where the optimizer calls it so.
        optimizer: A Keras optimizer for these variables, not built; None for one like the default.
        freeze: Leave the variables as they are: no update, no state, no part in norms.
        clip: A clip of the group's own in place of those of all, as {kind: bound}: one of
            `clipnorm`, `clipvalue`, `global_clipnorm` and `adaptive_clip_factor`; a bound of 0 is
            no clip. Norms over all gradients are then those over the group's, and over the others.
        freeze_steps: The updates for which the variables stay as they are, with their state; its
            optimizer must be of this package.
        name: Name in tables and summaries; None for what the matcher looks for.
        beside: A `Muon` that has all other variables that match: of those the group has what this
            does not orthogonalize; None for all that match.
        also: What the group has besides, of those: a list of `MatcherConfig`.

    Raises:
        ValueError: If there is not exactly one matcher, for a value out of its range, or for
            settings of which one would not act.
        TypeError: If `optimizer` is not one that can be used here.
    """

    match: str | None = None
    layer_type: str | None = None
    ndim: Sequence[int] | None = None
    learning_rate_multiplier: float = 1.0
    learning_rate: Any = None
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: keras.optimizers.Optimizer | None = None
    freeze: bool = False
    name: str | None = None
    beside: keras.optimizers.Optimizer | None = None
    also: Sequence[Any] = ()
    clip: Mapping[str, float] = dataclasses.field(default_factory=dict)
    freeze_steps: int = 0

    def __post_init__(self):
        matchers = [name for name in MATCHERS if getattr(self, name) is not None]
        if len(matchers) != 1:
            raise ValueError(
                f"A parameter group must have exactly one of {MATCHERS}, received: {matchers}"
            )
        if self.match is not None:
            as_pattern_list([self.match], "match")
        if self.ndim is not None:
            ndim = (self.ndim,) if isinstance(self.ndim, int) else tuple(self.ndim)
            if not ndim or not all(isinstance(n, int) and n >= 0 for n in ndim):
                raise ValueError(
                    f"Argument `ndim` must hold integers >= 0, received: ndim={self.ndim!r}"
                )
            object.__setattr__(self, "ndim", ndim)
        object.__setattr__(self, "hyperparameters", dict(self.hyperparameters))
        multiplier = self.learning_rate_multiplier
        if not 0 <= multiplier < math.inf:
            raise ValueError(
                "Argument `learning_rate_multiplier` must be >= 0 and finite, received: "
                f"learning_rate_multiplier={multiplier}"
            )
        rate = self.learning_rate
        if rate is not None and not callable(rate) and not 0 <= rate < math.inf:
            raise ValueError(
                "Argument `learning_rate` must be a schedule or a finite number >= 0, received: "
                f"learning_rate={rate!r}"
            )
        if self.optimizer is not None:
            check_wrappable(self.optimizer)
        rule = getattr(self.beside, "rule", None)
        if self.beside is not None and not isinstance(rule, MuonConfig):
            name = type(self.beside).__name__
            message = "Argument `beside` must be an `optimization.optimizers.Muon`, received: "
            raise TypeError(message + name)
        if self.also and self.beside is None:
            raise ValueError("Argument `also` needs `beside`: it is for what that would have.")
        self._check_clip()
        own = (rate is not None, self.optimizer is not None, self.hyperparameters, self.clip)
        if not isinstance(self.freeze_steps, int) or self.freeze_steps < 0:
            raise ValueError(
                "Argument `freeze_steps` must be an integer >= 0, received: freeze_steps="
                f"{self.freeze_steps!r}"
            )
        if self.freeze and (any(own) or multiplier != 1 or self.freeze_steps):
            raise ValueError("A parameter group with freeze=True can't have other settings.")

    @property
    def is_auxiliary(self) -> bool:  # type: ignore[override]
        """Whether it has what another optimizer leaves."""
        return self.beside is not None

    def left(self, shapes: Mapping[str, Sequence[int]]) -> set[str]:
        """Returns the paths that `beside` leaves, of those of all variables with their shapes."""
        return set() if self.beside is None else self.beside.rule.left(shapes)

    def _check_clip(self) -> None:
        clip = dict(self.clip)
        bounds = clip.values()
        if (
            not clip.keys() <= {*CLIPS}
            or len(clip) > 1
            or not all(0 <= b < math.inf for b in bounds)
        ):
            raise ValueError(
                f"Argument `clip` must be {{kind: bound}} with one of {CLIPS} and a number >= 0, "
                f"received: clip={self.clip!r}"
            )
        object.__setattr__(self, "clip", clip)

    def __repr__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values = {name: value for name, value in values.items() if value not in (None, {})}
        if "learning_rate" in values:
            values["learning_rate"] = rate_text(self.learning_rate)
        if "optimizer" in values:
            values["optimizer"] = optimizer_text(self.optimizer)
        if "beside" in values:
            values["beside"] = optimizer_text(self.beside)
        return printing.call(type(self).__name__, **printing.differing(self, values))

    def get_config(self) -> dict[str, Any]:
        serialize, rate = keras.saving.serialize_keras_object, self.learning_rate
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "optimizer": self.optimizer and portable(serialize(self.optimizer)),
            "beside": self.beside and portable(serialize(self.beside)),
            "also": [matcher.as_dict() for matcher in self.also],
            "learning_rate": serialize(rate) if callable(rate) else rate,
            "hyperparameters": serialize(self.hyperparameters),
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "ParamGroup":
        """Rebuilds the group from `get_config()`."""
        config = dict(config)
        config["also"] = tuple(map(MatcherConfig, config.get("also", ())))
        for key in ("optimizer", "beside", "learning_rate", "hyperparameters"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        return cls(**config)


def named(groups: Sequence[ParamGroup]) -> list[ParamGroup]:
    """Returns the groups, each with a name of its own, or raises for what is none."""
    for group in groups:
        if not isinstance(group, ParamGroup):
            raise TypeError(f"Argument `param_groups` must hold ParamGroup, received: {group!r}")
    groups = [dataclasses.replace(group, name=group.label) for group in groups]
    names = [DEFAULT, *(group.label for group in groups)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"Parameter groups must have names of their own, received: {repeated}")
    return groups


def owning_layer_types(model: keras.Model) -> dict[int, str]:
    """Returns the class name of the layer that owns each variable, by `id(variable)`."""
    return {
        id(variable): type(layer).__name__
        for layer in model._flatten_layers()
        for variable in layer._trainable_variables
    }
