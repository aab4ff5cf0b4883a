"""The functions that `fused` runs: the update of one kind of variable, compiled by XLA."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from optimization.keras.functions import FUNCTIONS, KerasArrays
from optimization.keras.rule_optimizer import (
    as_kept,
    decayed,
    numbers_now,
    state_as_in,
    updated,
)
from optimization.optimizers.ema import move
from optimization.optimizers.norms import norm, sum_of_squares
from optimization.rules.rule import Numbers, Rule

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

Scalars = Mapping[str, Any]
_FOLDS = 16


class Row(NamedTuple):
    """What differs between the variables of a kind, on one device.

    Attributes:
        copies: The weight, its state, and its average if any.
        values: The gradient, still to be scaled.
        factor: That of the gradient; None for 1.
        divisor: What the gradient is divided by before that; None for 1.
    """

    copies: list[Any]
    values: Any
    factor: Any
    divisor: Any

    def gradient(self) -> Any:
        """Returns the gradient, scaled."""
        gradient = self.values
        if self.divisor is not None:
            # XLA keeps the two factors apart, and multiplies faster than it divides.
            gradient = gradient * tf.cast(1.0 / self.divisor, gradient.dtype)
        if self.factor is not None:
            gradient = gradient * tf.cast(self.factor, gradient.dtype)
        return gradient


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the variables of a kind have in common.

    Attributes:
        rule: The formula.
        settings: The numbers that do not change.
        slots: The names of the slots.
        averages: Whether there is an average.
    """

    rule: Rule
    settings: Numbers
    slots: tuple[str, ...]
    averages: bool

    def numbers(self, scalars: Scalars, dtype: Any) -> Numbers:
        """Returns the numbers of an update in a dtype."""
        return numbers_now(self.settings, scalars, dtype.name)

    def state(self, values: Sequence[Any]) -> dict[str, Any]:
        """Returns what is given for the slots, by name."""
        return dict(zip(self.slots, values, strict=True))


class Update:
    """The update of one kind of variable, a function of tensors.

    Args:
        kind: Of which the variables are.
    """

    def __init__(self, kind: Kind):
        self.kind = kind
        # With the variables it was traced by, to whose life a function is bound.
        self._function: tuple[Any, list[Any]] | None = None

    def run(self, row: Row, scalars: Scalars) -> None:
        """Updates a variable of this kind on one device.

        Args:
            row: The variable.
            scalars: What is the same for all variables.
        """
        if self._function is None:
            self._function = compiled(self._whole, row, scalars), row.copies
        self._function[0](row, scalars)

    def _whole(self, row: Row, scalars: Scalars) -> None:
        kind, (weight, slots) = self.kind, self._parts(row)
        h = kind.numbers(scalars, weight.dtype)
        values = {name: slot.read_value() for name, slot in slots.items()}
        w, moved = updated(kind.rule, row.gradient(), weight.read_value(), values, h)
        self._assign(row, moved, w, scalars)

    def _parts(self, row: Row) -> tuple[Any, dict[str, Any]]:
        weight, *others = row.copies
        return weight, self.kind.state(others[: len(self.kind.slots)])

    def _assign(self, row: Row, moved: Mapping[str, Any], w: Any, scalars: Scalars) -> None:
        weight, slots = self._parts(row)
        for name, value in moved.items():
            slots[name].assign(value)
        weight.assign(w)
        if self.kind.averages:
            move(row.copies[-1], w, scalars["share"])


class LayerwiseUpdate(Update):
    """The update of one kind of variable, with norms in the middle, which TensorFlow computes."""

    def __init__(self, kind: Kind):
        super().__init__(kind)
        self._halves: list[Any] = []
        self._place = ""

    def run(self, row: Row, scalars: Scalars) -> None:
        """Updates a variable of this kind on one device; see `Update`."""
        if not self._halves:
            self._halves = [compiled(self._first, row, scalars), None, row.copies]
        folded = self._halves[0](row, scalars)
        norms = self._norms(row, folded)
        if self._halves[1] is None:
            self._halves[1] = compiled(self._second, row, scalars, norms)
        self._halves[1](row, scalars, norms)

    def _first(self, row: Row, scalars: Scalars) -> Any:
        """Decays the weight and moves the state; returns what the direction's norm is made of."""
        kind, (weight, slots) = self.kind, self._parts(row)
        h = kind.numbers(scalars, weight.dtype)
        value = weight.read_value()
        g, w = row.gradient(), decayed(kind.rule, value, h)
        s = state_as_in(kind.rule, {name: slot.read_value() for name, slot in slots.items()})
        if w is not value:
            weight.assign(w)
        kind.rule.move(g, w, s, h, FUNCTIONS)
        for name, value in as_kept(kind.rule, s.moved()).items():
            slots[name].assign(value)
        u = kind.rule.direction(g, w, s, h, FUNCTIONS)
        if u is g:
            self._place = "gradient"
            return ()
        places = [name for name in slots if u is getattr(s, name)]
        if places:
            self._place = places[0]
            return ()
        self._place = "folded"
        # In float64 no square is infinite or 0.
        return _folded(tf.cast(u, tf.float64) if kind.rule.is_wide else u)

    def _norms(self, row: Row, folded: Any) -> tuple[Any, Any]:
        weight, slots = self._parts(row)
        dtype = row.values.dtype
        of_weight = tf.sqrt(sum_of_squares(tf.convert_to_tensor(weight)))
        if self._place == "folded":
            return of_weight, tf.cast(tf.sqrt(tf.reduce_sum(folded)), dtype)
        if self._place != "gradient":
            return of_weight, FUNCTIONS.norm(
                tf.convert_to_tensor(slots[self._place]), self.kind.rule.is_wide
            )
        # It is clipped, and may be large before: its norm may be infinite where that of what it
        # is divided by is not.
        found = norm(row.values)
        unit = found.unit if row.divisor is None else found.unit / row.divisor
        length = found.root * unit
        return of_weight, length if row.factor is None else length * tf.cast(row.factor, dtype)

    def _second(self, row: Row, scalars: Scalars, norms: tuple[Any, Any]) -> None:
        """Updates the weight, its average, and what moves last."""
        kind, (weight, slots) = self.kind, self._parts(row)
        h = kind.numbers(scalars, weight.dtype)
        g, w = row.gradient(), weight.read_value()
        s = state_as_in(kind.rule, {name: slot.read_value() for name, slot in slots.items()})
        # Computed twice, so that it need not be kept.
        u = kind.rule.direction(g, w, s, h, FUNCTIONS)
        step = kind.rule.finish(u, w, s, Numbers(w=norms[0], u=norms[1]), h, FUNCTIONS)
        self._assign(row, as_kept(kind.rule, s.moved()), w - step, scalars)


class StackedUpdate(Update):
    """The update of all small variables of one kind at once, stacked along a new first axis.

    A call of a compiled function takes as long as the update of 100,000 numbers, and compiling it
    as long as thousands of small updates. Here TensorFlow reads the variables, one operation each,
    and puts them into one tensor; plain operations update it, and its parts become the variables'
    values.
    """

    def run_all(self, rows: Sequence[Row], scalars: Scalars) -> None:
        """Updates variables on one device.

        Args:
            rows: The variables.
            scalars: What is the same for all variables.
        """
        gradients = tf.stack([row.values for row in rows])
        rank = len(gradients.shape)
        kind = self.kind
        places = list(zip(*(row.copies for row in rows), strict=True))
        stacked = [
            _with_rank(tf.stack([_read(copy) for copy in copies]), rank) for copies in places
        ]
        factor = _together([row.factor for row in rows], rank)
        divisor = _together([row.divisor for row in rows], rank)
        if divisor is not None:  # by an operation that is not made one with the factor's
            gradients = gradients / tf.cast(divisor, gradients.dtype)
        g = Row([], gradients, factor, None).gradient()
        values = kind.state(stacked[1 : 1 + len(kind.slots)])
        h = kind.numbers(scalars, g.dtype)
        w, moved = updated(kind.rule, g, stacked[0], values, h, _Stacked())
        changed = {0: w, **{1 + kind.slots.index(name): value for name, value in moved.items()}}
        if kind.averages:
            share = tf.cast(scalars["share"], g.dtype)
            changed[len(places) - 1] = stacked[-1] + (w - stacked[-1]) * share
        for place, value in changed.items():
            copies = places[place]
            # Of the shape that it had, also if the value is the same number for all.
            value = value + tf.zeros_like(stacked[place]) if value.shape.rank == 0 else value
            parts = tf.unstack(tf.reshape(value, [len(rows), *copies[0].shape]))
            for copy, part in zip(copies, parts, strict=True):
                tf.raw_ops.AssignVariableOp(resource=copy.handle, value=part)


class _Stacked(KerasArrays):
    """Functions of what is stacked: a norm is that of each variable."""

    def norm(self, x: Any, wide: bool = False) -> Any:
        """Returns the norm of each variable."""
        of = tf.cast(x, tf.float64) if wide else x
        axes = list(range(1, len(x.shape)))
        total = tf.reduce_sum(tf.square(of), axis=axes, keepdims=True)
        return tf.cast(tf.sqrt(total), x.dtype)


def update_of(kind: Kind, variables: Sequence[Any], is_small: bool) -> Update:
    """Returns the update of a kind.

    Args:
        kind: The kind.
        variables: A weight of it, and its state.
        is_small: Whether a call takes longer than the update.
    """
    rule, shape = kind.rule, tuple(variables[0].shape)
    alike = all(tuple(variable.shape) in (shape, ()) for variable in variables)
    if is_small and alike and (rule.is_elementwise(kind.settings) or rule.is_layerwise):
        return StackedUpdate(kind)
    halves = rule.is_layerwise and rule.needs_norms(kind.settings)
    return LayerwiseUpdate(kind) if halves else Update(kind)


def _with_rank(tensor: Any, rank: int) -> Any:
    """Returns what is stacked with as many axes as the stacked gradients have."""
    missing = rank - len(tensor.shape)
    return tensor if missing == 0 else tf.reshape(tensor, [-1, *[1] * (rank - 1)])


def _together(values: Sequence[Any], rank: int) -> Any:
    """Returns a number of all gradients, None for 1, or those of each."""
    if all(value is values[0] for value in values):
        return values[0]
    return _with_rank(tf.stack(values), rank)


def _read(copy: Any) -> Any:
    # Without what else `read_value` does, which takes its time for thousands of variables.
    return tf.raw_ops.ReadVariableOp(resource=copy.handle, dtype=copy.dtype)


def _folded(x: Any) -> Any:
    """Returns sums of squares of 1/16 as many entries.

    The rest of the sum is a small one. XLA's own sums take three times as long as these 16
    additions in one pass.
    """
    # Not along the last axis, if possible, along which entries are loaded together.
    axis = next((i for i, size in enumerate(x.shape) if size >= 2 * _FOLDS), 0)
    size, shape = x.shape[axis] if x.shape.rank else 1, list(x.shape)
    if size < 2 * _FOLDS:
        return tf.square(x)
    length = size // _FOLDS
    shape[axis : axis + 1] = [_FOLDS, length]
    first, rest = tf.split(x, [_FOLDS * length, size % _FOLDS], axis=axis)
    total = tf.reduce_sum(tf.square(tf.reshape(first, shape)), axis=axis)
    return tf.concat([total, tf.square(rest)], axis=axis) if size % _FOLDS else total


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns a function for XLA, traced outside of all graphs and for any device."""

    def specification(value: Any) -> Any:
        if value is None or isinstance(value, tf.Variable):
            return value
        return tf.TensorSpec(value.shape, value.dtype)

    specifications = tf.nest.map_structure(specification, arguments)
    with tf.init_scope(), tf.device(None):
        jitted = tf.function(function, jit_compile=True, autograph=False)
        return jitted.get_concrete_function(*specifications)
