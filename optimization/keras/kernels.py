"""The functions that `updates` runs: the update of one kind of variable, compiled by XLA."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from optimization.keras import norms
from optimization.keras.compiling import compiled, is_small
from optimization.keras.control import tf
from optimization.keras.ema import move
from optimization.keras.rule_optimizer import decayed, state_as_in, updated
from optimization.keras.rule_part import FUNCTIONS, KerasArrays, numbers_now
from optimization.rules.arrays import State
from optimization.rules.layerwise import LayerwiseRule
from optimization.rules.rule import Numbers, given

Scalars = Mapping[str, Any]


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

    def squares_along_last(self) -> Any:
        """Returns sum(g^2) along the last axis of the scaled gradient."""
        if self.divisor is not None:  # It is clipped, and may be large before.
            return tf.square(self._length(norms.norms_along_last(self.values)))
        total = norms.squares_along_last(self.values)
        factor = self.factor
        return total if factor is None else total * tf.cast(tf.square(factor), total.dtype)

    def norm(self) -> Any:
        """Returns the norm of the scaled gradient, which may be large before it is clipped."""
        return self._length(norms.norm(self.values))

    def _length(self, found: norms.Norm) -> Any:
        # The norm itself may be infinite where that of what it is divided by is not.
        unit = found.unit if self.divisor is None else found.unit / self.divisor
        length = tf.cast(found.root * unit, self.values.dtype)
        return length if self.factor is None else length * tf.cast(self.factor, length.dtype)


class Kind(NamedTuple):
    """What the variables of a kind have in common.

    Attributes:
        rule: The formula, a `Rule`.
        settings: The numbers that do not change.
        slots: The names of the slots.
        averages: Whether there is an average.
    """

    rule: Any
    settings: Numbers
    slots: tuple[str, ...]
    averages: bool


class Update:
    """The update of one kind of variable, a function of tensors."""

    def __init__(self, kind: Kind):
        self.kind = kind
        # With the variables each was traced by, to whose life a function is bound.
        self._compiled: dict[str, tuple[Any, list[Any]]] = {}

    def run(self, row: Row, scalars: Scalars) -> None:
        """Updates a variable of this kind on one device."""
        self._call(self._whole, row, scalars)

    def _call(self, part: Callable[..., Any], row: Row, *arguments: Any) -> Any:
        name = part.__name__
        if name not in self._compiled:
            self._compiled[name] = compiled(part, row, *arguments), row.copies
        return self._compiled[name][0](row, *arguments)

    def _whole(self, row: Row, scalars: Scalars) -> None:
        g, w, s, h = self._now(row, scalars)
        self._assign(row, s, updated(self.kind.rule, g, w, s, h), scalars)

    def _now(self, row: Row, scalars: Scalars) -> tuple[Any, Any, State, Numbers]:
        values = {name: slot.read_value() for name, slot in self._slots(row).items()}
        weight, state = row.copies[0], state_as_in(self.kind.rule, values)
        h = numbers_now(self.kind.settings, scalars, weight.dtype.name)
        return row.gradient(), weight.read_value(), state, h

    def _slots(self, row: Row) -> dict[str, Any]:
        return dict(zip(self.kind.slots, row.copies[1:], strict=False))

    def _move(self, row: Row, s: State) -> None:
        slots = self._slots(row)
        for name, value in s.moved().items():
            slots[name].assign(value)

    def _assign(self, row: Row, s: State, w: Any, scalars: Scalars) -> None:
        self._move(row, s)
        row.copies[0].assign(w)
        if self.kind.averages:
            move(row.copies[-1], w, scalars["share"])


class LayerwiseUpdate(Update):
    """The update of one kind of variable, with norms and means that TensorFlow computes.

    What is compiled are the parts between: nothing of the variable's size is kept from one to the
    next.
    """

    def __init__(self, kind: Kind):
        super().__init__(kind)
        rule, settings = kind.rule, kind.settings
        self._axes = list(rule.averaged_axes(settings))
        self._norms = set(rule.norms_of(settings))
        # Otherwise all that is needed is known before.
        self._in_halves = "u" in self._norms or given(rule.decay_ahead(settings))
        self._direction = ""  # where it is found: "gradient", "folded", or the name of a slot

    def run(self, row: Row, scalars: Scalars) -> None:
        totals = self._totals(row)
        if not self._in_halves:
            self._call(self._second, row, scalars, self._norms_of(row, ()), totals)
            return
        folded = self._call(self._first, row, scalars, totals)
        self._call(self._second, row, scalars, self._norms_of(row, folded), ())

    def _totals(self, row: Row) -> list[Any]:
        """Returns the sums of the gradient's squares along the axes that the rule averages."""
        last = len(row.values.shape) - 1
        others = [axis for axis in self._axes if axis != last]
        folded = self._call(self._folds, row) if others else []
        totals = {axis: tf.reduce_sum(x, axis) for axis, x in zip(others, folded, strict=True)}
        if last in self._axes:
            totals[last] = row.squares_along_last()
        return [totals[axis] for axis in self._axes]

    def _folds(self, row: Row) -> list[Any]:
        last, g = len(row.values.shape) - 1, row.gradient()
        return [norms.folded(g, axis) for axis in self._axes if axis != last]

    def _first(self, row: Row, scalars: Scalars, totals: Any) -> Any:
        """Decays the weight and moves the state; returns what the direction's norm is made of."""
        rule = self.kind.rule
        g, value, s, h = self._now(row, scalars)
        w = decayed(rule, value, h)
        if w is not value:
            row.copies[0].assign(w)
        rule.move(g, w, s, self._with_means(h, row, totals), FUNCTIONS)
        self._move(row, s)
        if "u" not in self._norms:
            return ()
        u = rule.direction(g, w, s, h, FUNCTIONS)
        known = {"gradient": g, **{name: getattr(s, name) for name in self.kind.slots}}
        self._direction = next((name for name, x in known.items() if u is x), "folded")
        if self._direction != "folded":
            return ()
        # In float64 no square is infinite or 0.
        return norms.folded(tf.cast(u, tf.float64) if rule.is_wide else u)

    def _with_means(self, h: Numbers, row: Row, totals: Sequence[Any]) -> Numbers:
        sizes = [row.values.shape[axis] for axis in self._axes]
        means = [total / size for total, size in zip(totals, sizes, strict=True)]
        return Numbers(**{**vars(h), "means": means}) if means else h

    def _norms_of(self, row: Row, folded: Any) -> dict[str, Any]:
        """Returns the norms, or their squares: see `_rooted`, which XLA makes one with the rest."""
        found = {}
        if "w" in self._norms:
            weight = tf.convert_to_tensor(row.copies[0])
            found["w"] = norms.sum_of_squares(weight)
        if "u" not in self._norms:
            return found
        if self._direction == "folded":
            found["u"] = tf.reduce_sum(folded)
        elif self._direction == "gradient":
            found["u"] = row.norm()
        else:
            slot = tf.convert_to_tensor(self._slots(row)[self._direction])
            found["u"] = FUNCTIONS.norm(slot, self.kind.rule.is_wide)
        return found

    def _rooted(self, found: Mapping[str, Any], dtype: Any) -> Numbers:
        squared = {"w", "u"} if self._direction == "folded" else {"w"}
        rooted = {name: tf.cast(tf.sqrt(found[name]), dtype) for name in squared & found.keys()}
        return Numbers(**{**found, **rooted})

    def _second(self, row: Row, scalars: Scalars, found: Mapping[str, Any], totals: Any) -> None:
        """Updates the weight, its average, and what moves last; before, the state if not halved."""
        rule = self.kind.rule
        g, w, s, h = self._now(row, scalars)
        if not self._in_halves:
            rule.move(g, w, s, self._with_means(h, row, totals), FUNCTIONS)
        # In halves it is computed twice, so that it need not be kept.
        u = rule.direction(g, w, s, h, FUNCTIONS)
        step = rule.finish(u, w, s, self._rooted(found, g.dtype), h, FUNCTIONS)
        self._assign(row, s, w - step, scalars)


class StackedUpdate(Update):
    """The update of all small variables of one kind at once, stacked along a new first axis.

    A call of a compiled function takes as long as the update of 100,000 numbers, and compiling it
    as long as thousands of small updates. Here TensorFlow reads the variables, one operation each,
    and puts them into one tensor; plain operations update it, and its parts become the variables'
    values.
    """

    def run_all(self, rows: Sequence[Row], scalars: Scalars) -> None:
        """Updates variables on one device."""
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
        state = state_as_in(kind.rule, dict(zip(kind.slots, stacked[1:], strict=False)))
        h = numbers_now(kind.settings, scalars, g.dtype.name)
        w = updated(kind.rule, g, stacked[0], state, h, _Stacked(FUNCTIONS.module))
        changed = {0: w, **{1 + kind.slots.index(name): x for name, x in state.moved().items()}}
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
    """Functions of what is stacked: a norm is that of each variable, and axes are theirs."""

    def size(self, x: Any) -> Any:
        return math.prod(x.shape[1:])

    def centered(self, x: Any, axes: Sequence[int]) -> Any:
        return super().centered(x, [axis + 1 for axis in axes])

    def norm(self, x: Any, wide: bool = False) -> Any:
        of = tf.cast(x, tf.float64) if wide else x
        axes = list(range(1, len(x.shape)))
        total = tf.reduce_sum(tf.square(of), axis=axes, keepdims=True)
        return tf.cast(tf.sqrt(total), x.dtype)


def update_of(kind: Kind, variables: Sequence[Any]) -> Update:
    rule, shape = kind.rule, tuple(variables[0].shape)
    alike = all(tuple(variable.shape) in (shape, ()) for variable in variables)
    layerwise = isinstance(rule, LayerwiseRule)
    averages = layerwise and bool(rule.averaged_axes(kind.settings))
    stacks = rule.is_elementwise(kind.settings) or (layerwise and not averages)
    if is_small(variables[0]) and alike and stacks:
        return StackedUpdate(kind)
    # What is modified is computed as a whole, norms included.
    in_parts = layerwise and not rule.is_modified(kind.settings)
    asks = in_parts and (averages or rule.norms_of(kind.settings))
    return LayerwiseUpdate(kind) if asks else Update(kind)


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
