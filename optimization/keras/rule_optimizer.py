"""Optimizers of Keras that are made of rules."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from optimization.caching import cached
from optimization.configs.errors import ConfigError, did_you_mean
from optimization.keras.functions import FUNCTIONS
from optimization.keras.paths import path_of
from optimization.keras.patterns import all_shapes, require_matches
from optimization.keras.rates import ScaledRate, is_schedule
from optimization.keras.slots import as_dense, compute_dtype
from optimization.keras.texts import optimizer_text
from optimization.rules.arrays import State
from optimization.rules.rule import Numbers, Rule, Slot, given
from optimization.schedules.keras_schedules import build_schedule

_BASE = {
    name
    for cls in keras.optimizers.Optimizer.__mro__  # TensorFlow's part of it takes anything
    if "__init__" in vars(cls) and cls is not object
    for name in inspect.signature(cls.__init__).parameters
} - {"self", "args", "kwargs"}


class RuleOptimizer(keras.optimizers.Optimizer):
    """An optimizer of Keras that takes its fields, its state and its step from a rule.

    The fields are arguments and attributes, and are checked as those of the rule's section are,
    whenever they are set. State is float32 even where variables are not.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step.
        *args: Fields of the rule, in their order.
        **kwargs: Fields by name, and arguments of `keras.optimizers.Optimizer`.

    Raises:
        ConfigError: For what is wrong with the fields.
    """

    rule_class: ClassVar[type[Rule]]

    def __init__(self, learning_rate: Any = None, *args: Any, **kwargs: Any):
        rates = {n: kwargs.pop(n, None) for n in self.rule_class.own_rates.values()}
        fields, base = self._parted(args, kwargs)
        rule = checked(self.rule_class, fields)
        rate = _rate_for(rule, learning_rate)
        super().__init__(learning_rate=rate, name=base.pop("name", rule.name), **base)
        del self.weight_decay  # The rule has it.
        self.rule = rule
        self.rate_multiplier = 1.0  # that of a group, in `learning_rate` already
        for name, value in rates.items():
            setattr(self, name, value)

    @classmethod
    def _parted(
        cls, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the fields of the rule, and what Keras' base class takes."""
        names = argument_order(cls.rule_class)
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
        if rule is not None and name in argument_order(self.rule_class):
            return getattr(rule, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        rule = self.__dict__.get("rule")
        if rule is not None and name in argument_order(self.rule_class):
            setattr(rule, name, _plain(self.rule_class, name, value))
        else:
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        return optimizer_text(self)

    # State

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the state, and decides which variables decay and what they have of their own.

        Raises:
            ValueError: For regular expressions of which none matches a variable.
        """
        if self.built:
            return
        for argument, patterns in self.rule.patterns().items():
            require_matches(patterns, variables, argument)
        super().build(variables)
        paths = [path_of(variable) for variable in variables]
        own = self.rule.all_settings(paths, all_shapes(variables))
        self._own = [{**self.rule.variable_settings, **each} for each in own]
        self._by_path = [self.rule.decays(path) for path in paths]
        self._kept: dict[str, list[keras.Variable | None]] = {}
        for number, slots in enumerate(self.rule.slots):
            self._make_slots(variables, slots)
            if number == 0:
                self._make_shared()

    def _make_slots(self, variables: Sequence[keras.Variable], slots: Sequence[Slot]) -> None:
        made = {slot.name: [None] * len(variables) for slot in slots}
        for index, variable in enumerate(variables):
            h = self.settings_of(index)
            for slot in slots:
                if slot.when(h) and not self._overwrite_variable_with_gradient(variable):
                    made[slot.name][index] = self._slot(slot, variable, h)
        for slot in slots:
            self._kept[slot.name] = made[slot.name]
            if any(each is not None for each in made[slot.name]):
                setattr(self, f"_{slot.plural}", made[slot.name])

    def _slot(self, slot: Slot, variable: keras.Variable, h: Numbers) -> keras.Variable:
        shape = tuple(variable.shape)
        return self.add_variable(
            shape=shape if slot.shape is None else slot.shape(shape, h),
            initializer=keras.initializers.Constant(slot.first(h)),
            dtype=slot.dtype or compute_dtype(variable),
            layout=getattr(variable, "_layout", None) if slot.shape is None else None,
            name=f"{path_of(variable).replace('/', '_')}_{slot.name}",
        )

    def _make_shared(self) -> None:
        for slot in self.rule.shared:
            start = keras.initializers.Constant(slot.start)
            variable = self.add_variable((), start, dtype="float32", name=slot.name)
            setattr(self, f"_{slot.name}", variable)

    def state_of(self, index: int) -> dict[str, keras.Variable]:
        """Returns the state of a variable, by the names of the slots."""
        found = {name: kept[index] for name, kept in self._kept.items()}
        return {name: kept for name, kept in found.items() if kept is not None}

    def shared_state(self) -> dict[str, keras.Variable]:
        """Returns the state that belongs to no single variable."""
        return {slot.name: getattr(self, f"_{slot.name}") for slot in self.rule.shared}

    # Numbers

    def settings_of(self, index: int) -> Numbers:
        """Returns the numbers of a variable that do not change."""
        values = {name: getattr(self.rule, name) for name in argument_order(self.rule_class)}
        if not self._decays(index):
            values.update(dict.fromkeys(self.rule.decay_arguments, 0.0))
        if self.rule.asks_if_constant:
            values["constant_rate"] = not is_schedule(self._learning_rate)
        return Numbers(**values, **self._own[index])

    def _decays(self, index: int) -> bool:
        return self._by_path[index] and self._use_weight_decay(self._trainable_variables[index])

    def is_decayed(self, variable: Any) -> bool:
        """Says whether weight decay acts on a variable."""
        index = self._get_variable_index(variable)
        return any(self.rule.decay_rates(self.settings_of(index)))

    def is_orthogonalized(self, variable: Any) -> bool | None:
        """Says whether a variable's updates are orthogonalized; None where none are."""
        return self._own[self._get_variable_index(variable)].get("orthogonalized")

    def rate_of(self, own: Mapping[str, Any], learning_rate: Any) -> Any:
        """Returns the learning rate of a variable that has these settings of its own."""
        rate = getattr(self, self.rule.own_rates.get(own.get("kind", ""), ""), None)
        if rate is None:
            return learning_rate
        return (rate(self.iterations) if callable(rate) else rate) * self.rate_multiplier

    def counted(self, learning_rate: Any, scheduled: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is the same for all variables in an update.

        Args:
            learning_rate: The rate.
            scheduled: Values of numbers that follow a schedule.

        Returns:
            The rate, the updates done, these values, and those of `Rule.curves`, as tensors.
        """
        done = ops.convert_to_tensor(self.iterations)
        curves = self.rule.curves()
        along = {n: f(ops.cast(done, "float32"), FUNCTIONS) for n, f in curves.items()}
        if self.rule.own_learning_rate() is not None:
            along["multiplier"] = ops.convert_to_tensor(self.rate_multiplier, "float32")
        scheduled = dict(scheduled)
        return {
            "learning_rate": learning_rate,
            "done": done,
            "scheduled": scheduled,
            "along": along,
        }

    def numbers_of(self, variable: Any, counted: Mapping[str, Any]) -> Numbers:
        """Returns the numbers of a variable in an update, of what `counted` returned."""
        index = self._get_variable_index(variable)
        rate = self.rate_of(self._own[index], counted["learning_rate"])
        now = {**counted, "learning_rate": rate, "shared": self.shared_state()}
        return numbers_now(self.settings_of(index), now, compute_dtype(variable))

    # The step

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        """Does nothing: weights decay in `update_step`."""

    def _backend_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        counted = learning_rate
        if not isinstance(counted, Mapping):
            counted = self.counted(learning_rate, {})
        self.prepare(counted)
        super()._backend_update_step(grads, variables, counted)

    def prepare(self, counted: Mapping[str, Any]) -> None:
        """Moves what is shared, once in an update."""
        shared = self.shared_state()
        if not shared:
            return
        values = {name: getattr(self.rule, name) for name in argument_order(self.rule_class)}
        h = numbers_now(Numbers(**values), counted, "float32")
        c = State({name: ops.convert_to_tensor(variable) for name, variable in shared.items()})
        self.rule.prepare(c, h, FUNCTIONS)
        for name, value in c.moved().items():
            self.assign(shared[name], value)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its state."""
        counted = learning_rate
        if not isinstance(counted, Mapping):
            counted = self.counted(learning_rate, {})
        dtype, h = compute_dtype(variable), self.numbers_of(variable, counted)
        kept = self.state_of(self._get_variable_index(variable))
        values = {name: ops.convert_to_tensor(slot) for name, slot in kept.items()}
        gradient, weight = as_dense(gradient, dtype), ops.cast(variable, dtype)
        weight, moved = updated(self.rule, gradient, weight, values, h)
        for name, value in moved.items():
            self.assign(kept[name], value)
        self.assign(variable, ops.cast(weight, variable.dtype))

    # Serialization

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
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
        """Rebuilds the optimizer, its schedules included."""
        config = dict(config)
        for key in cls.rule_class.own_rates.values():
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        return super().from_config(config, custom_objects=custom_objects)


@cached
def argument_order(rule: type[Rule]) -> list[str]:
    """Returns the fields that are arguments; the decay that all have comes last."""
    names = rule.argument_names()
    first = [name for name in rule.argument_order if name in names]
    others = [name for name in names if name not in first]
    return first + sorted(others, key=lambda name: name == "weight_decay")


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
    # A group's or layer's part of the rule's own rate is as right.
    if own is None or isinstance(learning_rate, ScaledRate):
        return learning_rate
    config = getattr(learning_rate, "config", None)
    if isinstance(config, type(own)) and config.replace(name=getattr(own, "name", None)) == own:
        return learning_rate
    raise ValueError(
        'Argument `learning_rate` must be None with step_size="relative", which makes the rate '
        f"itself, received: learning_rate={learning_rate!r}"
    )


def checked(rule: type[Rule], fields: Mapping[str, Any]) -> Rule:
    """Returns a rule with these fields.

    Raises:
        ConfigError: For what is wrong with them.
    """
    made = rule({name: _plain(rule, name, value) for name, value in fields.items()})
    problems = [made._problem("conflict", *contradiction) for contradiction in made.impossible()]
    if problems:
        raise ConfigError(problems)
    arguments = {n: v for n, v in made.arguments().items() if n != "name"}
    return rule({**arguments, "name": made.name})


def numbers_now(settings: Numbers, counted: Mapping[str, Any], dtype: Any) -> Numbers:
    """Returns the numbers of a variable in an update.

    Args:
        settings: Those that do not change. One of them that is 0 or None stays so, where it follows
            a schedule: what belongs to it is left out.
        counted: What `RuleOptimizer.counted` returned, and perhaps what is shared.
        dtype: That of the numbers.
    """
    known = vars(settings)
    followed = {n: v for n, v in counted["scheduled"].items() if given(known.get(n))}
    changing = {**followed, **counted["along"], **counted.get("shared", {})}
    changing |= {"t": counted["done"] + 1, "lr": counted["learning_rate"]}
    now = {name: ops.cast(value, dtype) for name, value in changing.items()}
    return Numbers(**{**known, **now, "done": counted["done"]})


def updated(
    rule: Rule, g: Any, w: Any, values: Mapping[str, Any], h: Numbers, xp: Any = FUNCTIONS
) -> tuple[Any, dict[str, Any]]:
    """Returns a weight after an update, and what has moved of its state.

    Args:
        rule: The formula.
        g: The gradient.
        w: The weight.
        values: Its state, by the names of the slots, as Keras keeps it.
        h: The numbers.
        xp: The functions.
    """
    w, state = decayed(rule, w, h), state_as_in(rule, values)
    w = w - rule.step(g, w, state, h, xp)
    return w, as_kept(rule, state.moved())


def decayed(rule: Rule, w: Any, h: Numbers) -> Any:
    """Returns a weight after the decay that comes before the step."""
    rate = rule.decay_before(h)
    return w - w * (h.lr * rate) if given(rate) else w


def state_as_in(rule: Rule, values: Mapping[str, Any]) -> State:
    """Returns the state as the formula knows it, of what Keras keeps."""
    return State(as_kept(rule, values))


def as_kept(rule: Rule, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the state as Keras keeps it, of what the formula knows, or the other way round."""
    other_sign = {slot.name for slots in rule.slots for slot in slots if slot.negative}
    return {name: -x if name in other_sign else x for name, x in values.items()}
