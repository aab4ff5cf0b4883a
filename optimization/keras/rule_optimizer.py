"""Optimizers of Keras that are made of rules: their classes, and how they print."""

import contextlib
import inspect
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeGuard

import keras
import numpy as np
from keras import ops

from optimization.caching import cached
from optimization.configs import printing
from optimization.configs.documentation import complete
from optimization.configs.errors import ConfigError, did_you_mean
from optimization.configs.float32 import in_float32
from optimization.keras import precise
from optimization.keras.gradients import compute_dtype, densify, is_sparse, shaped, with_values
from optimization.keras.paths import Among, path_of
from optimization.keras.rule_part import FUNCTIONS, RulePart, rule_arguments
from optimization.rules.arrays import State, not_the_step
from optimization.rules.rule import Numbers, Rule, given
from optimization.rules.state_config import StateConfig
from optimization.schedules.keras_schedules import build_schedule
from optimization.schedules.scaled import rate_text

_BASE = printing.defaults(keras.optimizers.Optimizer).keys()
_SERIALIZATION = {"get_config", "from_config"}
_ARGUMENTS = """
Besides, it takes the arguments of `keras.optimizers.Optimizer`.

>>> weight = keras.Variable([0.5, -0.5])
>>> optimizer = {name}(learning_rate=0.01)
>>> optimizer.apply([keras.ops.ones(2)], [weight])
>>> int(optimizer.iterations)
1

Raises:
    ConfigError: For a value that the section does not take either; a `ValueError`.
    ValueError: At build, for expressions of which none matches a variable.
"""

# What a field would hide. A list of exclusions takes the place of Keras' method.
_TAKEN = {*dir(keras.optimizers.Optimizer)} - {"exclude_from_weight_decay"}
Built = tuple[RulePart, Sequence[Any], Sequence[str]]


class RuleOptimizer(keras.optimizers.Optimizer):
    """An optimizer of Keras that takes its fields, its state and its step from a rule.

    The fields are arguments and attributes, and are checked as those of the rule's section are,
    whenever they are set. State is float32 even where variables are not.
    """

    rule_class: ClassVar[type[Rule]]
    precision: StateConfig | None = None  # how precise the state is; None for float32

    def __init__(self, learning_rate: Any = None, *args: Any, **kwargs: Any):
        rates = {n: kwargs.pop(n, None) for n in self.rule_class.own_rates.values()}
        fields, base = self._parted(args, kwargs)
        # What the step does for all optimizers has the same ranges as in a section.
        of_step = {n: base[n] for n in self.rule_class.pipeline_fields() if base.get(n) is not None}
        rule = checked(self.rule_class, fields, of_step)
        rate = _rate_for(rule, learning_rate)
        if rule.corrected_weight_decay and rule.peak_learning_rate is None:
            rule.peak_learning_rate = _peak_of(rate)
        super().__init__(learning_rate=rate, name=base.pop("name", rule.name), **base)
        del self.weight_decay  # The rule has it.
        self.__dict__["_followed"] = {}  # numbers that follow a schedule, during an update
        self.rule = rule
        for name, value in rates.items():
            setattr(self, name, value)

    @classmethod
    def _parted(
        cls, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the fields of the rule, and what Keras' base class takes."""
        names = rule_arguments(cls.rule_class)
        if len(args) > len(names):
            raise TypeError(f"{cls.__name__} takes at most {len(names) + 1} positional arguments")
        fields = dict(zip(names, args, strict=False))
        twice = sorted(fields.keys() & kwargs.keys())
        if twice:
            raise TypeError(f"{cls.__name__} got several values for argument {twice[0]!r}")
        unknown = [n for n in kwargs if n not in names and n not in _BASE]
        if unknown:
            near = did_you_mean(unknown[0], [*names, *_BASE])
            raise TypeError(f"{cls.__name__} has no argument {unknown[0]!r}{near}")
        fields.update((n, v) for n, v in kwargs.items() if n in names)
        return fields, {n: v for n, v in kwargs.items() if n not in fields}

    # What the rule has is an attribute here.

    def __getattr__(self, name: str) -> Any:
        rule = self.__dict__.get("rule")
        if rule is not None and name in rule_arguments(self.rule_class):
            followed = self.__dict__["_followed"]
            return followed[name] if name in followed else getattr(rule, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        rule = self.__dict__.get("rule")
        if rule is None or name not in rule_arguments(self.rule_class):
            super().__setattr__(name, value)
        elif hasattr(value, "plain"):  # what a schedule has now: see `HyperparameterSchedules`
            self.__dict__["_followed"][name] = value
        else:
            self.__dict__["_followed"].pop(name, None)
            setattr(rule, name, _plain(self.rule_class, name, value))

    def __repr__(self) -> str:
        return str(optimizer_text(self))

    # State

    def build(self, variables: Sequence[keras.Variable]) -> None:
        paths = [path_of(variable) for variable in variables]
        self.build_parts([(RulePart(self), variables, paths)], Among.of(paths, variables))

    def build_parts(self, parts: Sequence[Built], among: Among) -> None:
        """Does what `build` does, for variables with different numbers and rates."""
        if self.built:
            return
        for part, _, _ in parts:
            for argument, patterns in part.rule.patterns().items():
                among.require(patterns, argument)
        super().build([variable for _, variables, _ in parts for variable in variables])
        self._parts = tuple(part for part, variables, _ in parts for _ in variables)
        for part, variables, paths in parts:
            part.build(variables, paths, among.shapes)
        # As Keras' optimizers have them, for whoever asks for `_momentums`.
        states = [part.state_of(v) for part, variables, _ in parts for v in variables]
        for slot in self.rule.all_slots():
            if slot.plural and any(slot.name in state for state in states):
                setattr(self, f"_{slot.plural}", [state.get(slot.name) for state in states])
        for name, variable in parts[0][0].shared.items():
            setattr(self, f"_{name}", variable)

    @property
    def estimated_step_size(self) -> keras.Variable | None:
        """The step size as the rule estimates it, Prodigy's d; None for other rules."""
        return self._parts[0].shared.get(self.rule.estimate) if self.built else None

    def part_of(self, variable: Any) -> RulePart:
        return self._parts[self._get_variable_index(variable)]

    def is_decayed(self, variable: Any) -> bool:
        part = self.part_of(variable)
        return any(part.rule.decay_rates(part.settings_of(variable)))

    # The step

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        """Does nothing: weights decay in `update_step`."""

    def _backend_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        counted, is_alone = learning_rate, not isinstance(learning_rate, Mapping)
        if is_alone:  # There is one part: Keras knows of no others.
            counted = self._counted(self._parts[0], learning_rate)
            self._parts[0].prepare(counted)
        # A user's `update_step` is for a rate.
        passed = counted if _is_its_rule(type(self)) else learning_rate
        super()._backend_update_step(grads, variables, passed)
        if is_alone:
            self._parts[0].conclude()

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        counted, part = learning_rate, self.part_of(variable)
        if not isinstance(counted, Mapping):
            counted = self._counted(part, learning_rate)
        dtype, h = compute_dtype(variable), part.numbers_of(variable, counted)
        by_rows = part.rule.moves_by_gradient_alone(h) and not part.rule.is_modified(h)
        by_rows = by_rows and self.precision is None
        if is_sparse(gradient) and by_rows:
            step = part.rule.step(ops.cast(gradient.values, dtype), None, State({}), h, FUNCTIONS)
            self.assign_sub(variable, with_values(gradient, ops.cast(step, variable.dtype)))
            return
        kept = part.state_of(variable)
        values = {  # Keras adds no empty variables
            name: ops.cast(x, dtype) if precise.is_low(x) else x.value for name, x in kept.items()
        }
        gradient = shaped(ops.cast(densify(gradient), dtype), variable.shape)
        state = state_as_in(part.rule, values)
        weight = updated(part.rule, gradient, ops.cast(variable, dtype), state, h)
        index = self._get_variable_index(variable)
        moved = [(name, kept[name], value) for name, value in state.moved().items()]
        for name, own, value in [*moved, ("weight", variable, weight)]:
            found = precise.stored(self.precision, value, own, index, name, counted["done"])
            self.assign(own, found)

    def _counted(self, part: RulePart, learning_rate: Any) -> dict[str, Any]:
        followed = self.__dict__["_followed"].items()
        scheduled = {name: ops.convert_to_tensor(value) for name, value in followed}
        return {**part.counted(learning_rate, {}), "scheduled": scheduled}

    # Serialization

    def get_config(self) -> dict[str, Any]:
        fields = {name: getattr(self.rule, name) for name in self.rule.argument_names()}
        rates = {name: getattr(self, name) for name in self.rule.own_rates.values()}
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()},
            **{k: serialize(v) if callable(v) else v for k, v in rates.items()},
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "RuleOptimizer":
        config = dict(config)
        for key in cls.rule_class.own_rates.values():
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        return super().from_config(config, custom_objects=custom_objects)


@cached
def keras_class(rule: type[Rule]) -> type[RuleOptimizer]:
    """Returns the class of Keras that is made of a rule."""
    origin = rule.origin()
    if origin is not rule:
        return keras_class(origin)
    name, fields = origin.class_name, rule_arguments(origin)
    taken = sorted(_TAKEN.intersection(fields))
    if taken:
        raise TypeError(
            f"{origin.__name__} cannot have a field `{taken[0]}`: an optimizer of Keras has an "
            "attribute of that name"
        )
    usual = origin()
    defaults = {"learning_rate": origin.usual_rate, **{n: getattr(usual, n) for n in fields}}
    kind, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("self", kind),
        *(inspect.Parameter(n, kind, default=value) for n, value in defaults.items()),
        *(inspect.Parameter(n, keyword, default=None) for n in origin.own_rates.values()),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  a method
        RuleOptimizer.__init__(self, *args, **kwargs)

    written: Any = __init__
    written.__signature__ = inspect.Signature(parameters)
    written.__qualname__ = f"{name}.__init__"
    members = {
        "rule_class": origin,
        "__init__": __init__,
        "__doc__": complete(origin, [*fields, "name"]) + _ARGUMENTS.format(name=name),
        "__module__": "optimization.optimizers",
        "__qualname__": name,
    }
    made = type(name, (RuleOptimizer,), members)
    keras.saving.register_keras_serializable("optimization", name)(made)
    return made


def trains_by_rule(optimizer: Any) -> TypeGuard[RuleOptimizer]:
    """Says whether the rule of an optimizer may stand for it, in compiled updates and in groups."""
    return isinstance(optimizer, RuleOptimizer) and _is_its_rule(type(optimizer))


@cached
def _is_its_rule(cls: type[RuleOptimizer]) -> bool:
    """Says whether a class trains as its rule does: no class of a user's has changed a method."""
    made = next(base for base in cls.__mro__ if "rule_class" in vars(base))
    own = (base for base in cls.__mro__ if issubclass(base, made) and base is not made)
    names = {name for base in own for name in vars(base) if not name.startswith("__")}
    return not names & set(dir(RuleOptimizer)) - _SERIALIZATION


def _plain(rule: type[Rule], name: str, value: Any) -> Any:
    """Returns a value as configs have it: no number of NumPy, no expression without a list."""
    if isinstance(value, str) and name in rule.pattern_fields():
        return [value]
    return value.item() if isinstance(value, np.generic) else value


def _rate_for(rule: Rule, learning_rate: Any) -> Any:
    """Returns the learning rate of an optimizer: what is given, or what the rule has for none."""
    own = rule.own_learning_rate()
    if learning_rate is None:
        return rule.usual_rate if own is None else build_schedule(own)
    if own is None:
        if isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, bool):
            learning_rate = float(learning_rate)  # Keras takes no other number
        if isinstance(learning_rate, float) and not 0 <= in_float32(learning_rate) < math.inf:
            raise ValueError(
                "Argument `learning_rate` must be >= 0 and finite in float32, received: "
                f"learning_rate={learning_rate!r}"
            )
        return learning_rate
    config = getattr(learning_rate, "config", None)
    if isinstance(config, type(own)) and config.replace(name=getattr(own, "name", None)) == own:
        return learning_rate
    raise ValueError(
        'Argument `learning_rate` must be None with step_size="relative", which makes the rate '
        f"itself, received: learning_rate={learning_rate!r}"
    )


def _peak_of(rate: Any) -> float:
    """Returns the highest learning rate of a class that is told none."""
    if isinstance(rate, float):
        return rate
    raise ValueError(
        "Argument `peak_learning_rate` is needed by `corrected_weight_decay` beside a learning "
        "rate that is no number"
    )


def checked(
    rule: type[Rule], fields: Mapping[str, Any], of_step: Mapping[str, Any] | None = None
) -> Rule:
    """Returns a rule with these fields, of which those `of_step` need only be in their range."""
    plain = {name: _plain(rule, name, value) for name, value in fields.items()}
    if of_step:
        rule({**plain, **{name: _plain(rule, name, value) for name, value in of_step.items()}})
    made = rule(plain)
    problems = [made._problem("conflict", *contradiction) for contradiction in made.impossible()]
    if problems:
        raise ConfigError(problems)
    arguments = {n: v for n, v in made.arguments().items() if n != "name"}
    return rule({**arguments, "name": made.name})


def updated(rule: Rule, g: Any, w: Any, s: State, h: Numbers, xp: Any = FUNCTIONS) -> Any:
    """Returns a weight after an update, which moves its state."""
    w = decayed(rule, w, h)
    step = rule.modified_step(g, w, s, h, xp)
    if not _has_shape_of(step, w):
        raise not_the_step(rule, step, w.shape)
    return w - step


def _has_shape_of(x: Any, w: Any) -> bool:
    """Says whether x is an array of the shape of w; where one is not known, of its rank."""
    shape = getattr(x, "shape", None)
    if shape is None or getattr(shape, "rank", 0) is None:
        return shape is not None
    pairs = list(zip(shape, w.shape, strict=False))
    return len(shape) == len(w.shape) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def decayed(rule: Rule, w: Any, h: Numbers) -> Any:
    """Returns a weight after the decay that comes before the step."""
    rate = rule.decay_ahead(h)
    return w - w * (h.lr * rate) if given(rate) else w


def state_as_in(rule: Rule, values: Mapping[str, Any]) -> State:
    """Returns the state as the formula knows it, of what Keras keeps."""
    return State(values, {slot.name for slot in rule.slots if slot.negative})


def optimizer_text(optimizer: Any) -> printing.Text:
    """Returns a Keras optimizer as its class, learning rate, and what differs from defaults."""
    rate, config = optimizer._learning_rate, {}
    if isinstance(rate, keras.Variable | keras.optimizers.schedules.LearningRateSchedule):
        # Some classes do not save, and variables may have no values yet; of functions Keras warns.
        with contextlib.suppress(Exception):
            config = dict(optimizer.get_config())
    for name in ("name", "learning_rate", "bias_learning_rate", "other_learning_rate"):
        config.pop(name, None)
    arguments = {"learning_rate": rate_text(rate), **printing.differing(optimizer, config)}
    return printing.Text(printing.call(type(optimizer).__name__, **arguments))
