"""Lists of tensors that formulas compute with, by `torch._foreach_*` operations.

Each operation of a formula would read its arguments and write a new list, which takes longer than
the arithmetic. So a list that is the result of an operation gives its memory to the next one; a
number times a list waits for what is done with it; and so does a quotient. What has been given away
can't be used again: a formula passes what it uses twice through `xp.keep`. Slots move in place, and
what a formula has read of one before is another array: it is used up, or kept, which copies it.
"""

import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_SPENT = (
    "a value is used twice in a formula, and its memory has been used again; pass it through "
    "`xp.keep` where it is computed"
)
_MOVED = "a slot is used as it was before it moved; pass it through `xp.keep` where it is read"
_IF = (
    "a formula has no `if` on what arrays hold, nor `and`, `max`: write `xp.where` or `xp.maximum`"
)


def number(value: Any) -> Any:
    """Returns a hyperparameter or a count as a Python number; as it is where torch compiles."""
    if isinstance(value, Tensor) and not torch.compiler.is_compiling():
        return value.item()
    return value


def are_alike(tensors: Sequence[Tensor]) -> bool:
    """Says whether there are tensors, and all of one device and dtype."""
    return len({x.device for x in tensors}) == 1 == len({x.dtype for x in tensors})


def batches(
    lists: Sequence[Sequence[Any]],
    kinds: Sequence[Any] | None = None,
    foreach: bool | None = None,
) -> Iterator[list[list[Any]]]:
    """Yields tensors of one device, dtype and kind, and from other lists what belongs to them.

    The tensors are the first of the lists. With `foreach=False` each is by itself.
    """
    if foreach is not False and len({*map(id, kinds)} if kinds else ()) < 2 and are_alike(lists[0]):
        yield [[*items] for items in lists]
        return
    indices: dict[Any, list[int]] = {}
    for index, tensor in enumerate(lists[0]):
        together = (tensor.device, tensor.dtype, None if kinds is None else kinds[index])
        indices.setdefault(index if foreach is False else together, []).append(index)
    for own in indices.values():
        yield [[items[index] for index in own] for items in lists]


PLAIN = (Tensor, torch.nn.Parameter)
"""The types of tensors whose memory is theirs alone, and not that of a subclass."""

_LAYOUTS = {
    torch.contiguous_format: None,
    torch.channels_last: 4,
    torch.channels_last_3d: 5,
}
"""Layouts without gaps, with the number of dimensions that tensors have that are laid out so."""


def is_plain(x: Tensor) -> bool:
    """Says whether a tensor is of no subclass, and without gaps in memory."""
    if type(x) not in PLAIN or x.layout != torch.strided:
        return False
    return any(
        x.is_contiguous(memory_format=layout)
        for layout, dimensions in _LAYOUTS.items()
        if dimensions in (None, x.dim())
    )


def are_contiguous(tensors: Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Says whether all tensors are contiguous, and of a dtype."""
    return {x.dtype for x in tensors} == {dtype} and all(map(Tensor.is_contiguous, tensors))


class Batch(NamedTuple):
    """Tensors of one device, dtype and kind, to be updated by a rule.

    Attributes:
        weights: The weights.
        grads: Their gradients, which an update may change.
        slots: Their state, by the names of the slots.
        averages: Their averages, which move too; empty for none.
        share: How far averages move to the new weights.
        maximize: Whether the loss is maximized.
        divisor: What the gradients are divided by; None for 1.
    """

    weights: list[Tensor]
    grads: list[Tensor]
    slots: Mapping[str, list[Tensor]]
    averages: list[Tensor]
    share: float = 0.0
    maximize: bool = False
    divisor: Tensor | None = None

    def arrays(self) -> list[list[Tensor]]:
        """Returns all lists of tensors."""
        return [self.weights, self.grads, *self.slots.values(), *filter(None, [self.averages])]

    def is_of_one_size(self) -> bool:
        """Says whether all else has as many entries as the weights."""
        sizes = [*map(Tensor.numel, self.weights)]
        return all([*map(Tensor.numel, own)] == sizes for own in self.arrays())

    def of_each(self, function: Callable[[list[Tensor]], list[Tensor]]) -> "Batch":
        """Returns what a function makes of each of the lists."""
        slots = {name: function(own) for name, own in self.slots.items()}
        lists = (self.weights, self.grads, self.averages)
        weights, grads, averages = (function(own) if own else [] for own in lists)
        return self._replace(weights=weights, grads=grads, slots=slots, averages=averages)


def _applied(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def applied(self: Any, other: Any) -> Any:
        is_left = isinstance(self, Scalars) and isinstance(other, Tensors)  # Tensors know how
        return NotImplemented if is_left else self.map(function, other)

    return applied


class Array:
    """What is no single array, and has the comparisons of one."""

    def map(self, function: Callable[..., Any], *others: Any) -> Any:
        """Returns a function of each, and of others or of their parts; kept."""
        own = for_each(self, 1)
        columns = [for_each(other, len(own)) for other in others]
        made = [function(*row) for row in zip(own, *columns, strict=True)]
        return Tensors(made) if isinstance(self, Tensors) else Scalars(made)

    __gt__, __ge__ = _applied(operator.gt), _applied(operator.ge)
    __lt__, __le__ = _applied(operator.lt), _applied(operator.le)
    __eq__, __ne__ = _applied(operator.eq), _applied(operator.ne)
    __and__ = __rand__ = _applied(operator.and_)
    __or__ = __ror__ = _applied(operator.or_)
    __hash__ = object.__hash__

    def __invert__(self) -> Any:
        return self.map(lambda a: ~a if isinstance(a, Tensor) else not a)

    def __abs__(self) -> Any:
        return self.map(abs)

    def __bool__(self) -> bool:
        raise TypeError(_IF)


class Scalars(Array):
    """A number, or a tensor of one, for each tensor of a list."""

    def __init__(self, values: Sequence[Any]):
        self.values = list(values)

    __add__ = __radd__ = _applied(lambda a, b: a + b)
    __sub__ = _applied(lambda a, b: a - b)
    __rsub__ = _applied(lambda a, b: b - a)
    __mul__ = __rmul__ = _applied(lambda a, b: a * b)
    __truediv__ = _applied(lambda a, b: a / b)
    __rtruediv__ = _applied(lambda a, b: b / a)
    __mod__, __pow__ = _applied(operator.mod), _applied(operator.pow)
    __rpow__ = _applied(lambda a, b: b**a)

    def __neg__(self) -> "Scalars":
        return self.map(lambda a: -a)


def for_each(value: Any, count: int) -> Sequence[Any]:
    """Returns the parts of a value for each of some tensors; what has none is the same for all."""
    if isinstance(value, Tensors):
        return value.tensors()
    return value.values if isinstance(value, Scalars) else [value] * count


def together(values: Sequence[Any]) -> Any:
    """Returns numbers of several tensors: one of them where all are the same."""
    first = values[0]
    same = not isinstance(first, Tensor) and all(value == first for value in values)
    return first if same else Scalars(values)


class Tensors(Array):
    """A list of tensors, with the arithmetic of numbers: factor * tensors / divisors.

    Their memory may be used again where it is their own.
    """

    def __init__(
        self,
        tensors: list[Tensor],
        own: bool = False,
        factor: float = 1.0,
        divisors: list[Tensor] | None = None,
    ):
        self._tensors: list[Tensor] | None = tensors
        self._own = own
        self._factor = factor
        self._divisors = divisors
        # Of these, to be computed before a change; weak, so that no cycle keeps their memory.
        self._waiting: list[weakref.ref[Tensors]] = []
        self._of: list[Tensors] = []  # of which slots this is computed
        self._aliases = False  # whether its memory is that of a slot
        self.bound = float("inf")  # what no entry exceeds, where that is known

    def raw(self) -> list[Tensor]:
        """Returns the tensors without factor and divisors."""
        if self._tensors is None:
            raise RuntimeError(_MOVED if isinstance(self, Slots) else _SPENT)
        return self._tensors

    def tensors(self) -> list[Tensor]:
        """Returns the tensors, which must not be changed."""
        if self._divisors is not None:
            self._compute("div", self._divisors)
            self._divisors = None
        if self._factor != 1.0:
            self._compute("mul", self._factor)
            self._factor = 1.0
        return self.raw()

    def _compute(self, name: str, other: Any) -> None:
        if self._own:
            getattr(torch, f"_foreach_{name}_")(self.raw(), other)
        else:
            made = getattr(torch, f"_foreach_{name}")(self.raw(), other)
            self._tensors, self._own, self._aliases = list(made), True, False

    def take(self) -> list[Tensor]:
        """Returns the tensors, to be changed: only where they are its own."""
        tensors = self.tensors()
        self._tensors = None
        return tensors

    def keep(self) -> "Tensors":
        """Returns these, which may be used more than once."""
        self.tensors()
        self._own = False
        return self

    def settle(self) -> None:
        """Computes what waits for it, before the tensors are changed."""
        waiting, self._waiting = self._waiting, []
        for reference in waiting:
            each = reference()
            if each is not None and each._tensors is not None:
                tensors = each.tensors()
                if each._aliases:
                    each._tensors, each._aliases = [x.clone() for x in tensors], False

    def viewed(self, function: Callable[[Tensor], Tensor]) -> "Tensors":
        """Returns views of these, which are kept."""
        kept = self.keep()
        made = Tensors([function(x) for x in kept.tensors()])
        made._aliases = kept._aliases
        kept._let_wait(made)
        return made

    def _let_wait(self, made: "Tensors") -> None:
        for slot in [*self._of, *([self] if isinstance(self, Slots) else [])]:
            slot._waiting.append(weakref.ref(made))
            made._of.append(slot)

    def _lazy(self, factor: float, divisors: "Tensors | None" = None) -> "Tensors":
        """Returns these times a number, over divisors, to be computed later."""
        of = divisors.tensors() if divisors is not None else self._divisors
        made = Tensors(self.raw(), self._own, self._factor * factor, of)
        made._aliases = self._aliases or isinstance(self, Slots)
        for base in (self, divisors):
            if base is not None:
                base._let_wait(made)
        if self._own:
            self._tensors = None
        if divisors is not None and divisors._own:
            divisors._tensors = None
        return made

    def apply(self, name: str, *arguments: Any) -> "Tensors":
        """Returns what `torch._foreach_...` of a name makes of these, in place where it can."""
        tensors = self.tensors()
        if not self._own:
            return Tensors(list(getattr(torch, f"_foreach_{name}")(tensors, *arguments)), own=True)
        own = self.take()
        getattr(torch, f"_foreach_{name}_")(own, *arguments)
        return Tensors(own, own=True)

    def _plus(self, other: Any, sign: float) -> "Tensors":
        if not isinstance(other, Tensors):
            other = as_plain(other)
            other = [sign * x for x in other] if isinstance(other, list) else sign * other
            return self.apply("add", other)
        if other is self:
            return self._lazy(1.0 + sign)
        if other._divisors is not None:
            other.tensors()
        if self._divisors is not None:
            self.tensors()
        alpha = sign * other._factor
        if not self._own and other._own and alpha == 1.0:
            own, plain, share = other.take(), self.raw(), self._factor
        elif self._own or self._factor != 1.0:
            plain, share = other.raw(), alpha
            self.tensors()
            own = self.take()
        else:
            made = torch._foreach_add(self.raw(), other.raw(), alpha=alpha)
            return Tensors(list(made), own=True)
        torch._foreach_add_(own, plain, alpha=share)
        return Tensors(own, own=True)

    def __add__(self, other: Any) -> "Tensors":
        return self._plus(other, 1.0)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Tensors":
        return self._plus(other, -1.0)

    def __rsub__(self, other: Any) -> "Tensors":
        return (-self)._plus(other, 1.0)

    def __neg__(self) -> "Tensors":
        return self._lazy(-1.0)

    def __mul__(self, other: Any) -> "Tensors":
        if isinstance(other, int | float):
            return self._lazy(other)
        if not isinstance(other, Tensors):
            return self.apply("mul", as_plain(other))
        if other is self:
            return Tensors(list(torch._foreach_mul(self.tensors(), self.tensors())), own=True)
        first, second = (self, other) if self._own or not other._own else (other, self)
        return first.apply("mul", second.tensors())

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Tensors":
        if isinstance(other, int | float):
            return self._lazy(1.0 / other)
        if not isinstance(other, Tensors):
            return self.apply("div", as_plain(other))
        if self._divisors is not None:
            self.tensors()
        return self._lazy(1.0, other)

    def __rtruediv__(self, other: Any) -> "Tensors":
        return other * self.apply("reciprocal")

    def __pow__(self, other: Any) -> "Tensors":
        exponent = other.tensors() if isinstance(other, Tensors) else as_plain(other)
        return self.apply("pow", exponent)

    def __rpow__(self, other: Any) -> "Tensors":
        return self.map(lambda x, base: base**x, other)

    def shapes(self) -> list[torch.Size]:
        """Returns the shape of each tensor."""
        pairs = zip(self.raw(), self._divisors or self.raw(), strict=True)
        return [torch.broadcast_shapes(tensor.shape, other.shape) for tensor, other in pairs]

    def add_to(self, target: list[Tensor], sign: float = 1.0) -> None:
        """Adds these to other tensors, in place."""
        factor = sign * self._factor
        if self._divisors is not None:
            torch._foreach_addcdiv_(target, self.raw(), self._divisors, value=factor)
        else:
            torch._foreach_add_(target, self.raw(), alpha=factor)


def as_plain(other: Any) -> Any:
    """Returns a number, or a list of numbers or tensors, for torch's functions of lists."""
    return other.values if isinstance(other, Scalars) else other


class Slots(Tensors):
    """What is kept of some variables under one name, until it moves."""

    def keep(self) -> Tensors:
        """Returns these as they are now, which is copied where they move."""
        made = Tensors(self.raw())
        made._aliases = True
        self._let_wait(made)
        return made

    def moving(self) -> "Slots":
        """Returns these, to be changed in place, after what waits for it."""
        self.settle()
        tensors, self._tensors = self.raw(), None
        return Slots(tensors)
