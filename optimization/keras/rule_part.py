"""What some of the variables of an optimizer of a rule have in common: numbers, rate and state.

The formula computes with `FUNCTIONS`: those of `keras.ops`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from optimization.caching import cached
from optimization.keras.control import is_traced, tf
from optimization.keras.gradients import compute_dtype
from optimization.keras.norms import norm, sum_of_squares
from optimization.rules.arrays import Arrays, State
from optimization.rules.modifiers import MODIFIER_FIELDS
from optimization.rules.rule import Numbers, Rule, Slot, given


class KerasArrays(Arrays):
    """Arrays of the backend of Keras."""

    def rsqrt(self, x: Any) -> Any:
        return ops.rsqrt(x)

    def sign(self, x: Any) -> Any:
        if keras.backend.backend() != "torch":
            return ops.sign(x)
        return ops.sign(x) + 0.0 * x  # PyTorch has 0 for NaN, and nothing would tell it

    def cast(self, x: Any, like: Any) -> Any:
        kind = like if isinstance(like, str) else keras.backend.standardize_dtype(like.dtype)
        return ops.cast(x, kind)

    def steps_since(self, count: Any, start: int, like: Any) -> Any:
        return steps_since(count, start, keras.backend.standardize_dtype(like.dtype))

    def recurs(self, count: Any, period: int, like: Any) -> Any:
        return ops.cast(ops.equal(count % period, 0), like.dtype)

    def resolution(self, x: Any) -> float:
        return float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)

    def swapaxes(self, x: Any, first: int, second: int) -> Any:
        order = list(range(len(x.shape)))
        order[first], order[second] = second, first
        return ops.transpose(x, order)  # since Keras' `swapaxes` takes no variable of TensorFlow

    def when(self, due: Any, function: Callable[..., Any], x: Any, *others: Any) -> Any:
        if is_traced(due):
            return ops.cond(due, lambda: function(self, x, *others), lambda: x)
        if tf is None or tf.executing_eagerly():
            return function(self, x, *others) if due else x
        arrays = [tf.convert_to_tensor(array) for array in (x, *others)]
        return tf.cond(due, lambda: _traced(function)(*arrays), lambda: arrays[0])

    def eigh(self, x: Any) -> Any:
        backend = keras.backend.backend()
        # In float32 TensorFlow's are several times as far from the eigenvectors as LAPACK's.
        if backend != "tensorflow":
            values, vectors = ops.eigh(x)
            # Of some singular matrices in float32 MKL's have NaN, and no error.
            if backend != "torch" or ops.all(ops.isfinite(vectors)):
                return values, vectors
        values, vectors = ops.eigh(ops.cast(x, "float64"))
        return ops.cast(values, x.dtype), ops.cast(vectors, x.dtype)

    def qr(self, x: Any) -> Any:
        return ops.qr(x)

    def places(self, x: Any) -> Any:
        return ops.arange(x.shape[0], dtype=keras.backend.standardize_dtype(x.dtype)) / x.shape[0]

    def norm(self, x: Any, wide: bool = False) -> Any:
        return norm(x).value if wide else ops.sqrt(sum_of_squares(x))


@cached
def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of arrays that TensorFlow traces once for all of a shape."""
    return tf.function(functools.partial(function, FUNCTIONS), autograph=False)


def steps_since(steps: Any, start: int, dtype: str = "float32") -> Any:
    """Returns steps - start, a scalar; it is exact near the start, however late that is."""
    steps = ops.convert_to_tensor(steps)
    if keras.backend.standardize_dtype(steps.dtype) == "int32":
        start = min(start, 2**31 - 1)
    return ops.cast(steps - start, dtype)


FUNCTIONS = KerasArrays(ops)


class RulePart:
    """Some of the variables of an optimizer of a rule: those of one group and multiplier, or all.

    Args:
        optimizer: Whose variables they are, a `RuleOptimizer`.
        rule: Its rule with what the group has replaced; None for that of the optimizer.
        rate: Their learning rate, as `rate_now` takes it.
        multiplier: A factor on it.
        own_rates: What the group has in place of the optimizer's `Rule.own_rates`, by argument.
        start: How many updates the optimizer takes before these are updated.

    Attributes:
        follows: Its numbers that follow a schedule, each with the name of the schedule.
        shared: The state that belongs to no single variable.
        named: All state, each by its name in `variables_by_path()`, in the order of `variables`.
    """

    def __init__(
        self,
        optimizer: Any,
        rule: Rule | None = None,
        rate: Any = None,
        multiplier: float = 1.0,
        own_rates: Mapping[str, Any] | None = None,
        start: int = 0,
    ):
        self.optimizer = optimizer
        self.rule = optimizer.rule if rule is None else rule
        self.follows: dict[str, str] = {}
        self.shared: dict[str, keras.Variable] = {}
        self.named: list[tuple[str, keras.Variable]] = []
        self._rate, self._multiplier = rate, multiplier
        self._own_rates, self._start = dict(own_rates or {}), start

    # State

    def build(
        self,
        variables: Sequence[keras.Variable],
        paths: Sequence[str],
        shapes: Mapping[str, Sequence[int]],
    ) -> None:
        index, usual = self.optimizer._get_variable_index, self.rule.variable_settings
        own = self.rule.own_numbers(paths, shapes)
        places = [index(variable) for variable in variables]
        self._own = {n: {**usual, **each} for n, each in zip(places, own, strict=True)}
        self._decays = {n: self.rule.decays(p) for n, p in zip(places, paths, strict=True)}
        self._state: dict[int, dict[str, keras.Variable]] = {n: {} for n in places}
        slots = [slot for slot in self.rule.all_slots() if slot.plural]
        for turn in sorted({0, *(slot.turn for slot in slots)}):
            for variable, path in zip(variables, paths, strict=True):
                if not self.optimizer._overwrite_variable_with_gradient(variable):
                    self._make_slots(variable, path, [s for s in slots if s.turn == turn])
            for slot in self.rule.shared if turn == 0 else ():
                start = _filled_with(slot.first(Numbers(**_fields(self.rule))))
                kept = self.optimizer.add_variable((), start, dtype="float32", name=slot.name)
                self.shared[slot.name] = kept
                self.named.append((slot.name, kept))

    def _make_slots(self, variable: keras.Variable, path: str, slots: Sequence[Slot]) -> None:
        h, shape, kept = self.settings_of(variable), tuple(variable.shape), self.state_of(variable)
        for slot in (slot for slot in slots if slot.when(h)):
            own = slot.shape_of(shape, h)
            kept[slot.name] = self.optimizer.add_variable(
                shape=shape if own is None else own,
                initializer=_filled_with(slot.first(h)),
                dtype=slot.dtype or self._dtype_of(slot, variable),
                layout=_layout_of(slot, variable, h),
                name=f"{path.replace('/', '_')}_{slot.name}",
            )
            self.named.append((f"{slot.plural}/{path}", kept[slot.name]))

    def _dtype_of(self, slot: Slot, variable: keras.Variable) -> str:
        precision = self.optimizer.precision
        is_low = precision is not None and precision.keeps_low(slot)
        return "bfloat16" if is_low else compute_dtype(variable)

    def state_of(self, variable: Any) -> dict[str, keras.Variable]:
        """Returns the state of a variable, by the names of the slots."""
        return self._state[self.optimizer._get_variable_index(variable)]

    # Numbers

    @property
    def learning_rate(self) -> Any:
        return rate_now(self.optimizer, self._rate, self._multiplier)

    def own_of(self, variable: Any) -> dict[str, Any]:
        """Returns what a variable has of `Rule.variable_settings`."""
        return self._own[self.optimizer._get_variable_index(variable)]

    def settings_of(self, variable: Any) -> Numbers:
        """Returns the numbers of a variable that do not change."""
        index, optimizer = self.optimizer._get_variable_index(variable), self.optimizer
        values = _fields(self.rule)
        trained = optimizer._trainable_variables[index]
        if not (self._decays[index] and optimizer._use_weight_decay(trained)):
            values.update(dict.fromkeys(self.rule.decay_arguments, 0.0))
        rate = optimizer._learning_rate if self._rate is None else self._rate
        return Numbers(**values, **self._own[index], constant_rate=not callable(rate))

    def compiles(self, variable: Any) -> bool:
        """Says whether XLA compiles the update of a variable in time."""
        return self.rule.compiles(self.settings_of(variable))

    def largest_gradient(self, variable: Any) -> float:
        """Returns the largest gradient of a variable that the rule can hold in float32."""
        return self.rule.largest_gradient_of(self.settings_of(variable))

    def own_rate(self, argument: str) -> Any:
        """Returns the rate of some variables, by the argument that it is; None for the usual."""
        return self._own_rates.get(argument, getattr(self.optimizer, argument))

    def rate_of(self, variable: Any, learning_rate: Any) -> Any:
        """Returns the learning rate of a variable; `learning_rate` if it is the usual one."""
        argument = self.rule.own_rates.get(self.own_of(variable).get("kind", ""))
        rate = None if argument is None else self.own_rate(argument)
        if rate is None:
            return learning_rate
        return (rate(self.optimizer.iterations) if callable(rate) else rate) * self._multiplier

    def counted(self, learning_rate: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is the same for all variables in an update, as tensors.

        That is the rate, the updates done, what numbers follow of the `values` of schedules, and
        the values of `Rule.curves`.
        """
        done = ops.convert_to_tensor(self.optimizer.iterations)
        curves = self.rule.curves()
        along = {n: f(ops.cast(done, "float32"), FUNCTIONS) for n, f in curves.items()}
        if self.rule.own_learning_rate() is not None or self.rule.corrected_weight_decay:
            along["multiplier"] = ops.convert_to_tensor(self._multiplier, "float32")
        done = ops.maximum(done - self._start, 0) if self._start else done
        now = {"learning_rate": learning_rate, "done": done, "along": along}
        follows = self.follows.items()
        return {**now, "scheduled": {own: values[n] for own, n in follows if n in values}}

    def numbers_of(self, variable: Any, counted: Mapping[str, Any]) -> Numbers:
        """Returns the numbers of a variable in an update, of what `counted` returned."""
        rate = self.rate_of(variable, counted["learning_rate"])
        now = {**counted, "learning_rate": rate, "shared": self.shared}
        return numbers_now(self.settings_of(variable), now, compute_dtype(variable))

    # The step

    def update(self, grads: Any, variables: Any, values: Mapping[str, Any]) -> None:
        """Updates variables and their state, one by one, with these values of schedules."""
        counted = self.counted(self.learning_rate, values)
        self.prepare(counted)
        self.optimizer._backend_update_step(grads, variables, counted)

    def prepare(self, counted: Mapping[str, Any]) -> None:
        """Moves what is shared, once in an update."""
        if not self.shared:
            return
        h = numbers_now(Numbers(**_fields(self.rule)), counted, "float32")
        self._move(self.rule.prepare, h)

    def conclude(self) -> None:
        """Moves what is shared once all variables of the optimizer are updated."""
        if not self.rule.summed:
            return
        parts = dict.fromkeys(self.optimizer._parts)
        states = [state for part in parts for state in part._state.values()]
        kept = [[state[name] for state in states if name in state] for name in self.rule.summed]
        sums = [sum((ops.cast(x, "float32") for x in own), 0.0) for own in kept]
        totals = dict(zip(self.rule.summed, sums, strict=True))
        self._move(self.rule.conclude, Numbers(**_fields(self.rule), **totals))

    def _move(self, function: Callable[..., None], h: Numbers) -> None:
        c = State({name: ops.convert_to_tensor(kept) for name, kept in self.shared.items()})
        function(c, h, FUNCTIONS)
        for name, value in c.moved().items():
            self.optimizer.assign(self.shared[name], value)


def _layout_of(slot: Slot, variable: keras.Variable, h: Numbers) -> Any:
    """Returns the layout of a slot: that of the variable, along the axes that it has of it."""
    layout, shape = getattr(variable, "_layout", None), tuple(variable.shape)
    if layout is None or slot.shape is None:
        return layout
    axes = slot.axes_of(shape, h) or ()
    if isinstance(layout, keras.distribution.TensorLayout):
        return keras.distribution.TensorLayout([layout.axes[i] for i in axes], layout.device_mesh)
    along = [*layout.spec, *[None] * (len(shape) - len(layout.spec))]  # a sharding of JAX
    return type(layout)(layout.mesh, type(layout.spec)(*(along[i] for i in axes)))


def _filled_with(value: float) -> keras.initializers.Initializer:
    # A constant is ones times a value: two passes, and a second tensor, for zeros.
    return keras.initializers.Constant(value) if value else keras.initializers.Zeros()


def _fields(rule: Rule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in rule_arguments(type(rule))}


def rate_now(optimizer: Any, rate: Any, multiplier: float) -> Any:
    """Returns a multiple of a learning rate as it is now.

    That is a variable, or a schedule of the updates that an optimizer counts; None for its own.
    """
    if rate is None:
        now = optimizer.learning_rate
    else:
        now = ops.convert_to_tensor(rate(optimizer.iterations) if callable(rate) else rate)
    return now if multiplier == 1 else now * multiplier


def numbers_now(settings: Numbers, counted: Mapping[str, Any], dtype: Any) -> Numbers:
    """Returns the numbers of a variable in an update, given what `RulePart.counted` returned.

    One of the settings that is 0 or None stays so, where it follows a schedule: what belongs to it
    is left out.
    """
    known = vars(settings)
    followed = {n: v for n, v in counted["scheduled"].items() if given(known.get(n))}
    changing = {**followed, **counted["along"], **counted.get("shared", {})}
    changing |= {"t": counted["done"] + 1, "lr": counted["learning_rate"]}
    now = {name: ops.cast(value, dtype) for name, value in changing.items()}
    return Numbers(**{**known, **now, "done": counted["done"]})


@cached
def rule_arguments(rule: type[Rule]) -> list[str]:
    """Returns the fields that are arguments, in their order, which holds for calls by position.

    First come those that the rule puts first, then the others as they are declared, and what rules
    got later comes after what they had before.
    """
    names = rule.argument_names()
    first = [name for name in rule.argument_order if name in names]

    def place(name: str) -> tuple[bool, ...]:
        latest, later = name in rule.latest_arguments, name in rule.later_arguments
        return latest, name in MODIFIER_FIELDS, later, name == "weight_decay"

    return first + sorted((name for name in names if name not in first), key=place)
