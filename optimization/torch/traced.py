"""A formula as expressions: what it computes of each entry, of which loops are made.

A formula that is called with values of this module computes nothing; it says what there is to
compute. What has no meaning entry by entry, as a product of matrices, is an `AttributeError`.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from optimization.rules.arrays import Arrays, State
from optimization.rules.rule import Numbers, Rule, given

_IF = "a formula has no `if` on what arrays hold: write `xp.where`"


class Operation(NamedTuple):
    """What is done with values: in the source of a loop, and with numbers by NumPy."""

    source: str
    function: Callable[..., Any]


OPERATIONS = {
    "add": Operation("({} + {})", operator.add),
    "sub": Operation("({} - {})", operator.sub),
    "mul": Operation("({} * {})", operator.mul),
    "truediv": Operation("({} / {})", operator.truediv),
    "mod": Operation("({} % {})", operator.mod),
    "pow": Operation("({} ** {})", np.power),
    "eq": Operation("({} == {})", operator.eq),
    "ne": Operation("({} != {})", operator.ne),
    "gt": Operation("({} > {})", operator.gt),
    "ge": Operation("({} >= {})", operator.ge),
    "lt": Operation("({} < {})", operator.lt),
    "le": Operation("({} <= {})", operator.le),
    "and": Operation("({} & {})", operator.and_),
    "or": Operation("({} | {})", operator.or_),
    "neg": Operation("(-{})", operator.neg),
    "abs": Operation("abs({})", np.abs),
    "sqrt": Operation("np.sqrt({})", np.sqrt),
    "expm1": Operation("np.expm1({})", np.expm1),
    "log": Operation("np.log({})", np.log),
    # With 0 times the number, which is NaN of what is not finite, as of lists of tensors.
    "sign": Operation(
        "(real({0} > 0) - real({0} < 0) + real(0) * {0})", lambda x: np.sign(x) + 0.0 * x
    ),
    "maximum": Operation("({0} if {0} > {1} or {0} != {0} else {1})", np.maximum),
    "minimum": Operation("({0} if {0} < {1} or {0} != {0} else {1})", np.minimum),
    # Of what is no number -{1}, to which `Traced.bounded` adds NaN.
    "bounded": Operation(
        "(({0} if {0} < {1} else {1}) if {0} > -{1} else -{1})", lambda x, y: np.clip(x, -y, y)
    ),
    "where": Operation("({1} if {0} else {2})", np.where),
}
"""The operations of formulas, by name."""


ENTRY, ROW, COLUMN, ALL = "entry", "row", "column", "all"
"""What has a value of its own: each entry, each row or column of a matrix, or the whole."""


class Value:
    """A value of a formula.

    Attributes:
        name: That of its operation; else that of what is read: "constant", "number", "read",
            "norm"; "sum", over all entries; "mean", over the rows or columns of entries; "mean_of",
            over all rows or columns of their values.
        arguments: Of what it is computed; of what is read, its name; of a constant, the number.
        of: What has one of its own.
        turn: How many loops over the variable come before that which can compute it: the norm of
            what the first loop computes is known to the second.
    """

    def __init__(self, name: str, *arguments: Any, of: str = ALL, turn: int = 0):
        self.name, self.arguments = name, arguments
        self.of, self.turn = of, turn

    def __bool__(self) -> bool:
        raise TypeError(_IF)

    __hash__ = object.__hash__

    def __neg__(self) -> Any:
        return computed("neg", self)

    def __abs__(self) -> Any:
        return computed("abs", self)


def computed(name: str, *arguments: Any) -> Value:
    """Returns the value that an operation has for values and numbers."""
    values = [x if isinstance(x, Value) else _constant(x) for x in arguments]
    kinds = {value.of for value in values} - {ALL}
    of = ENTRY if len(kinds) > 1 else kinds.pop() if kinds else ALL
    return Value(name, *values, of=of, turn=max(value.turn for value in values))


def _constant(x: Any) -> Value:
    return Value("constant", x if isinstance(x, bool) else float(x))


def _operator(name: str, turned: bool = False) -> Callable[[Value, Any], Value]:
    def method(self: Value, other: Any) -> Value:
        return computed(name, other, self) if turned else computed(name, self, other)

    return method


for _name in ("add", "sub", "mul", "truediv", "pow", "and", "or"):
    setattr(Value, f"__{_name}__", _operator(_name))
    setattr(Value, f"__r{_name}__", _operator(_name, turned=True))
for _name in ("eq", "ne", "gt", "ge", "lt", "le"):
    setattr(Value, f"__{_name}__", _operator(_name))


class _Module:
    """What `Arrays` asks a module for; it has no functions that mix entries."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in OPERATIONS:
            raise AttributeError(f"no function of each entry by itself: {name}")
        return lambda *arguments: computed(name, *arguments)

    square = staticmethod(lambda x: x * x)
    power = staticmethod(lambda x, y: x**y)
    ones_like = staticmethod(lambda x: 1.0)

    def clip(self, x: Any, least: Any, most: Any) -> Any:
        return self.minimum(self.maximum(x, least), most)


class Traced(Arrays):
    """What a formula calls `xp`, where its values are of this module.

    Args:
        dtype: The type of the entries.
        axes: How many axes there are, where the last two are those of matrices.
    """

    def __init__(self, dtype: np.dtype, axes: int | None = None):
        super().__init__(_Module())
        self._dtype, self._axes = dtype, axes

    def mean(self, x: Any, axis: int, keepdims: bool = False) -> Value:
        if self._axes is not None and x.of == ENTRY and not keepdims:
            place = axis % self._axes - self._axes
            if place in (-1, -2):
                return Value("mean", x, of=ROW if place == -1 else COLUMN, turn=x.turn + 1)
        # Rows and columns have lost an axis, and the other one of matrices is their last.
        is_small = self._axes is not None and x.of in (ROW, COLUMN)
        if self._axes is not None and is_small and keepdims and axis in (-1, self._axes - 2):
            return Value("mean_of", x, of=x.of, turn=x.turn)
        raise AttributeError("no mean of rows or columns")

    def expand_dims(self, x: Any, axis: int) -> Any:
        if self._axes is None or x.of not in (ROW, COLUMN):
            raise AttributeError("no rows or columns")
        return x

    def norm(self, x: Any, wide: bool = False) -> Value:
        if x.of != ENTRY:
            raise AttributeError("no norm of entries")
        return Value("norm", x, turn=x.turn + 1)  # summed in float64: no square is infinite or 0

    def sum(self, x: Any) -> Value:
        if x.of != ENTRY:
            raise AttributeError("no sum of entries")
        return Value("sum", x, turn=x.turn + 1)

    def size(self, x: Any) -> Value:
        return Value("number", SIZE)

    def centered(self, x: Any, axes: Any) -> Value:
        raise AttributeError("no mean of inputs")

    def bounded(self, x: Any, most: float, tells: bool = True) -> Any:
        if self.resolution(x) < 1e-10:
            return x
        found = computed("bounded", x, most)
        return found + 0.0 * x if tells else found

    def steps_since(self, count: Any, start: int, like: Any) -> Any:
        return count - start

    def recurs(self, count: Any, period: int, like: Any) -> Any:
        return self.where(computed("mod", count, period) == 0, 1.0, 0.0)

    def resolution(self, x: Any) -> float:
        return float(np.finfo(self._dtype).eps)


def is_number(value: Any) -> bool:
    """Says whether a number may be another one in the next step: 0, None and integers stay."""
    return isinstance(value, float) and given(value)


WEIGHT, GRADIENT, AVERAGE = "weight", "gradient", "average"
"""The names of arrays that are no slots."""


FACTOR, SHARE, SIZE = "the factor", "the share", "the size"
"""The names of numbers that are no fields."""


def slot_name(name: str) -> str:
    """Returns the name of the array of a slot."""
    return f"slot_{name}"


class TracedState(State):
    """What a formula calls `s`, as lists of PyTorch compute it: no infinite square becomes NaN."""

    def lerp_square(self, name: str, value: Any, share: Any) -> Any:
        return self.scale_add(name, 1 - share, share * (value * value))


class Form(NamedTuple):
    """What is done beside the rule's step.

    Attributes:
        maximizes: Whether the gradient has the other sign.
        scales: Whether the gradient is multiplied by the number `FACTOR`.
        averages: Whether an average moves by the share `SHARE` to the new weight.
        axes: How many axes there are, where the last two are those of matrices; None for no matter.
    """

    maximizes: bool = False
    scales: bool = False
    averages: bool = False
    axes: int | None = None


def trace(
    rule: Rule, numbers: Mapping[str, Any], slots: Mapping[str, str], dtype: np.dtype, form: Form
) -> dict[str, Value]:
    """Returns what a step makes of each array that changes, by name.

    Args:
        rule: The rule.
        numbers: Its numbers; of those that are not 0 the values do not matter.
        slots: The slots that there are, with what has a value of its own in them.
        dtype: The type of the entries.
        form: What is done besides.

    Raises:
        AttributeError: For a function that is not of each entry by itself.
        TypeError: For an `if` on a number, and for what is no step of each entry.
    """
    known = {n: Value("number", n) if is_number(x) else x for n, x in numbers.items()}
    h, xp = Numbers(**known), Traced(dtype, form.axes)
    arrays = (WEIGHT, GRADIENT, AVERAGE)
    read: list[Any] = [Value("read", name, of=ENTRY) for name in arrays]
    w, g, average = read
    kept = {name: Value("read", slot_name(name), of=of) for name, of in slots.items()}
    if form.scales:
        g = g * Value("number", FACTOR)
    if form.maximizes:
        g = -g
    state, rate = TracedState(kept), rule.decay_ahead(h)
    if given(rate):
        w = w * (1 - h.lr * rate)
    step = rule.modified_step(g, w, state, h, xp)
    if not isinstance(step, Value) or step.of != ENTRY:
        raise TypeError("the formula returns no step of each entry")
    moved = {slot_name(name): value for name, value in state.moved().items()}
    moved[WEIGHT] = w - step
    if form.averages:
        share: Any = Value("number", SHARE)
        moved[AVERAGE] = average * (1 - share) + moved[WEIGHT] * share
    values = {n: x if isinstance(x, Value) else Value("constant", x) for n, x in moved.items()}
    for name in state.moved():
        fitting = (ENTRY, ALL) if slots[name] == ENTRY else (slots[name],)
        if values[slot_name(name)].of not in fitting:
            raise TypeError(f"the slot {name!r} becomes of another shape")
    return values
