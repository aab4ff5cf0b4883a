"""A formula as expressions: what it computes of each entry, of which loops are made.

A formula that is called with values of this module computes nothing; it says what there is to
compute. What has no meaning entry by entry, as a product of matrices, is an `AttributeError`.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
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
    "pow": Operation("({} ** {})", np.power),
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
    "sign": Operation("({0} if {0} != {0} else real({0} > 0) - real({0} < 0))", np.sign),
    "maximum": Operation("({0} if {0} > {1} or {0} != {0} else {1})", np.maximum),
    "minimum": Operation("({0} if {0} < {1} or {0} != {0} else {1})", np.minimum),
    "where": Operation("({1} if {0} else {2})", np.where),
}
"""The operations of formulas, by name."""


class Value:
    """A value of a formula: of each entry of a variable, or one number of all of it.

    Attributes:
        name: That of its operation; else that of what is read: "constant", "number", "read",
            "norm".
        arguments: Of what it is computed; of what is read, its name; of a constant, the number.
        per_entry: Whether each entry has one of its own.
        turn: How many loops over the variable come before that which can compute it: the norm of
            what the first loop computes is known to the second.
    """

    def __init__(self, name: str, *arguments: Any, per_entry: bool = False, turn: int = 0):
        self.name, self.arguments = name, arguments
        self.per_entry, self.turn = per_entry, turn

    def __bool__(self) -> bool:
        raise TypeError(_IF)

    __hash__ = object.__hash__

    def __neg__(self) -> Any:
        return computed("neg", self)

    def __abs__(self) -> Any:
        return computed("abs", self)


def computed(name: str, *arguments: Any) -> Value:
    """Returns the value that an operation has for values and numbers."""
    values = [x if isinstance(x, Value) else Value("constant", float(x)) for x in arguments]
    per_entry = any(value.per_entry for value in values)
    return Value(name, *values, per_entry=per_entry, turn=max(value.turn for value in values))


def _operator(name: str, turned: bool = False) -> Callable[[Value, Any], Value]:
    def method(self: Value, other: Any) -> Value:
        return computed(name, other, self) if turned else computed(name, self, other)

    return method


for _name in ("add", "sub", "mul", "truediv", "pow", "and", "or"):
    setattr(Value, f"__{_name}__", _operator(_name))
    setattr(Value, f"__r{_name}__", _operator(_name, turned=True))
for _name in ("gt", "ge", "lt", "le"):
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
    """What a formula calls `xp`, where its values are of this module."""

    def __init__(self, dtype: np.dtype):
        super().__init__(_Module())
        self._dtype = dtype

    def norm(self, x: Any, wide: bool = False) -> Value:
        return Value("norm", x, turn=x.turn + 1)  # summed in float64: no square is infinite or 0

    def size(self, x: Any) -> Value:
        return Value("number", "size")

    def steps_since(self, count: Any, start: int, like: Any) -> Any:
        return count - start

    def resolution(self, x: Any) -> float:
        return float(np.finfo(self._dtype).eps)


def is_number(value: Any) -> bool:
    """Says whether a number may be another one in the next step: 0 and None stay."""
    return isinstance(value, int | float) and not isinstance(value, bool) and given(value)


WEIGHT, GRADIENT, AVERAGE = "weight", "gradient", "average"
"""The names of arrays that are no slots."""


def slot_name(name: str) -> str:
    """Returns the name of the array of a slot."""
    return f"slot_{name}"


class Form(NamedTuple):
    """What is done beside the rule's step.

    Attributes:
        maximizes: Whether the gradient has the other sign.
        scales: Whether the gradient is multiplied by the number "factor".
        averages: Whether an average moves by the share "share" to the new weight.
    """

    maximizes: bool = False
    scales: bool = False
    averages: bool = False


def trace(
    rule: Rule, numbers: Mapping[str, Any], slots: Sequence[str], dtype: np.dtype, form: Form
) -> dict[str, Value]:
    """Returns what a step makes of each array that changes, by name.

    Args:
        rule: The rule.
        numbers: Its numbers; of those that are not 0 the values do not matter.
        slots: The names of the slots that there are.
        dtype: The type of the entries.
        form: What is done besides.

    Raises:
        AttributeError: For a function that is not of each entry by itself.
        TypeError: For an `if` on a number, and for what is no step of each entry.
    """
    known = {n: Value("number", n) if is_number(x) else x for n, x in numbers.items()}
    h, xp = Numbers(**known), Traced(dtype)
    arrays = [WEIGHT, GRADIENT, AVERAGE, *map(slot_name, slots)]
    read: list[Any] = [Value("read", name, per_entry=True) for name in arrays]
    w, g, average, *kept = read
    if form.scales:
        g = g * Value("number", "factor")
    if form.maximizes:
        g = -g
    state, rate = State(dict(zip(slots, kept, strict=True))), rule.decay_before(h)
    if given(rate):
        w = w * (1 - h.lr * rate)
    step = rule.step(g, w, state, h, xp)
    if not isinstance(step, Value) or not step.per_entry:
        raise TypeError("the formula returns no step of each entry")
    moved = {slot_name(name): value for name, value in state.moved().items()}
    moved[WEIGHT] = w - step
    if form.averages:
        moved[AVERAGE] = average + (moved[WEIGHT] - average) * Value("number", "share")
    return {n: x if isinstance(x, Value) else Value("constant", x) for n, x in moved.items()}
