"""The functions and the state that formulas compute with, over lists of tensors."""

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from optimization.rules.arrays import Arrays, State
from optimization.torch.gradients import norms
from optimization.torch.lists import Array, Scalars, Slots, Tensors, as_plain, for_each, together


def _elementwise(name: str, of_number: Callable[[float], float]) -> Any:
    """Returns a function of lists, tensors and numbers that torch has under a name."""

    def of(x: Any) -> Any:
        return getattr(x, name)() if isinstance(x, Tensor) else of_number(x)

    def function(x: Any) -> Any:
        if isinstance(x, Tensors):
            return x.apply(name)
        return x.map(of) if isinstance(x, Scalars) else of(x)

    return staticmethod(function)


def _extreme(name: str, of_numbers: Callable[[Any, Any], Any]) -> Any:
    """Returns the function of two that torch has as "maximum" or "minimum"."""
    bound = "min" if name == "maximum" else "max"

    def of(x: Any, y: Any) -> Any:
        if isinstance(x, Tensor):
            return x.clamp(**{bound: y})
        return y.clamp(**{bound: x}) if isinstance(y, Tensor) else of_numbers(x, y)

    def function(x: Any, y: Any) -> Any:
        if isinstance(y, Array) and not isinstance(x, Tensors):
            x, y = y, x
        if isinstance(x, Tensors):
            return x.apply(name, y.tensors() if isinstance(y, Tensors) else as_plain(y))
        return x.map(of, y) if isinstance(x, Scalars) else of(x, y)

    return staticmethod(function)


def _reduced(name: str, x: Tensors, axis: Any = None, keepdims: bool = False) -> Any:
    if axis is None and not keepdims:
        return Scalars([getattr(tensor, name)() for tensor in x.tensors()])
    return x.map(lambda tensor: getattr(tensor, name)(dim=axis, keepdim=keepdims))


def _one_of(condition: Any, x: Any, y: Any) -> Any:
    if not isinstance(condition, Tensor):
        return x if condition else y
    if _is_known(condition) and _are_alike(x, y):
        return x if condition else y
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        x = torch.tensor(x, dtype=torch.float64, device=condition.device)  # not the usual float32
    return torch.where(condition, x, y)


def _is_known(condition: Tensor) -> bool:
    """Says whether a condition is one for a whole tensor, and a look at it takes nothing."""
    is_at_hand = type(condition) is Tensor and condition.device.type == "cpu"
    return condition.dim() == 0 and is_at_hand and not torch.compiler.is_compiling()


def _are_alike(x: Any, y: Any) -> bool:
    are_tensors = isinstance(x, Tensor) and isinstance(y, Tensor)
    return are_tensors and (x.shape, x.dtype) == (y.shape, y.dtype)


def _part(index: int, parts: int, axis: int, x: Tensor) -> Tensor:
    return x.chunk(parts, axis)[index]


def _pairs(function: Callable[[Tensor], Any], x: Tensors) -> tuple[Tensors, Tensors]:
    first, second = zip(*map(function, x.tensors()), strict=True)
    return Tensors(list(first)), Tensors(list(second))


def _eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the eigenvalues and the eigenvectors of a symmetric matrix.

    Of some singular matrices in float32 MKL's have NaN, and no error; those in float64 have not.
    """
    values, vectors = torch.linalg.eigh(x)
    if vectors.isfinite().all():
        return values, vectors
    values, vectors = torch.linalg.eigh(x.double())
    return values.to(x.dtype), vectors.to(x.dtype)


def _has_inputs(x: Tensor) -> bool:
    """Says whether a parameter has several inputs for each output; else there is no mean."""
    return x.dim() > 1 and x.numel() > len(x)


def _mean_of_inputs(x: Tensor) -> Tensor:
    return x.mean(dim=tuple(range(1, x.dim())), keepdim=True)


def _are_within(tensors: list[Tensor], most: float) -> bool:
    """Says whether no entry is larger, where a look at them takes less than to bound them."""
    if torch.compiler.is_compiling() or any(x.device.type != "cpu" for x in tensors):
        return False
    found = torch.stack(list(torch._foreach_norm(tensors)))  # a faster look than at the largest
    return bool((found <= most).all())


class Lists(Arrays):
    """What a formula calls `xp`, for lists of tensors, numbers, and numbers of each tensor.

    What is not described here is as in `Arrays`, or in NumPy.
    """

    abs = _elementwise("abs", abs)
    sqrt = _elementwise("sqrt", math.sqrt)
    expm1 = _elementwise("expm1", math.expm1)
    log = _elementwise("log", lambda x: math.log(x) if x > 0 else -math.inf)
    maximum, minimum = _extreme("maximum", max), _extreme("minimum", min)
    mean = staticmethod(functools.partial(_reduced, "mean"))
    sum = staticmethod(functools.partial(_reduced, "sum"))
    power = staticmethod(operator.pow)
    square = staticmethod(lambda x: x * x)

    @staticmethod
    def keep(x: Any) -> Any:
        return x.keep() if isinstance(x, Tensors) else x

    @classmethod
    def rsqrt(cls, x: Any) -> Any:
        return x.apply("rsqrt") if isinstance(x, Tensors) else 1 / cls.sqrt(x)

    @staticmethod
    def sign(x: Tensors) -> Tensors:
        kept = x.keep().tensors()
        signs = list(torch._foreach_sign(kept))
        torch._foreach_add_(signs, kept, alpha=0)  # torch has 0 for NaN, and nothing would tell it
        return Tensors(signs, own=True)

    @staticmethod
    def expand_dims(x: Tensors, axis: int) -> Tensors:
        return x.viewed(lambda tensor: tensor.unsqueeze(axis))

    @staticmethod
    def reshape(x: Tensors, shape: Any) -> Tensors:
        return x.viewed(lambda tensor: tensor.reshape(shape))

    @staticmethod
    def size(x: Tensors) -> Scalars:
        return Scalars([tensor.numel() for tensor in x.tensors()])

    @staticmethod
    def centered(x: Tensors, axes: Any) -> Tensors:
        """Returns tensors less their means over all axes but the first, where they have several."""
        del axes  # so it is in PyTorch
        kept = x.keep().tensors()
        return Tensors(
            [each - _mean_of_inputs(each) if _has_inputs(each) else each for each in kept]
        )

    @staticmethod
    def resolution(x: Tensors) -> float:
        return torch.finfo(x.raw()[0].dtype).eps

    @staticmethod
    def steps_since(count: Any, start: int, like: Tensors) -> Any:
        """Returns count - start: a float64, which is exact."""
        return count - start

    @classmethod
    def recurs(cls, count: Any, period: int, like: Tensors) -> Any:
        return cls.where(count % period == 0, 1.0, 0.0)

    @staticmethod
    def clip(x: Tensors, least: float, most: float) -> Tensors:
        return x.apply("clamp_min", least).apply("clamp_max", most)

    @staticmethod
    def bounded(x: Tensors, most: float, tells: bool = True) -> Tensors:
        tensors = x.keep().tensors()
        is_float64 = torch.finfo(tensors[0].dtype).eps < 1e-10
        if is_float64 or x.bound <= most or _are_within(tensors, most):
            x.bound = most
            return x
        own = torch._foreach_clamp_min(tensors, -most)
        torch._foreach_clamp_max_(own, most)
        if tells:
            torch._foreach_add_(own, tensors, alpha=0)
        return Tensors(list(own))

    @staticmethod
    def lerp(x: Tensors, y: Tensors, share: float) -> Tensors:
        return Tensors(list(torch._foreach_lerp(x.tensors(), y.tensors(), share)), own=True)

    @staticmethod
    def where(condition: Any, x: Any, y: Any) -> Any:
        if isinstance(condition, Scalars) and (isinstance(x, Tensors) or isinstance(y, Tensors)):
            condition = Tensors([torch.as_tensor(each) for each in condition.values])
        is_one = not isinstance(condition, Array)
        return _one_of(condition, x, y) if is_one else condition.map(_one_of, x, y)

    @staticmethod
    def matmul(x: Tensors, y: Tensors) -> Tensors:
        pairs = zip(x.tensors(), y.tensors(), strict=True)
        return Tensors([a @ b for a, b in pairs], own=True)

    @staticmethod
    def cast(x: Any, like: Any) -> Any:
        kind = getattr(torch, like) if isinstance(like, str) else like.raw()[0].dtype
        return x.map(lambda each: each.to(kind))

    @staticmethod
    def matmul_add(
        x: Tensors, y: Tensors, z: Tensors, factors: tuple[Any, Any], dtype: str | None = None
    ) -> Tensors:
        """Returns a x y + b z, by torch's function of all, which rounds once."""
        del dtype
        a, b = factors
        rows = zip(z.tensors(), x.tensors(), y.tensors(), strict=True)
        return Tensors([torch.addmm(*row, alpha=a, beta=b) for row in rows], own=True)

    @staticmethod
    def swapaxes(x: Tensors, first: int, second: int) -> Tensors:
        """Returns tensors with two axes exchanged, which share the memory of these."""
        return x.viewed(lambda each: each.swapaxes(first, second))

    @staticmethod
    def argsort(x: Tensors) -> Tensors:
        return x.map(torch.argsort)

    @staticmethod
    def take(x: Tensors, places: Tensors, axis: int) -> Tensors:
        return x.map(lambda each, own: each.index_select(axis, own), places)

    @staticmethod
    def flip(x: Tensors, axis: int) -> Tensors:
        return x.map(lambda each: each.flip(axis))

    @staticmethod
    def eigh(x: Tensors) -> tuple[Tensors, Tensors]:
        return _pairs(_eigh, x)

    @staticmethod
    def qr(x: Tensors) -> tuple[Tensors, Tensors]:
        return _pairs(torch.linalg.qr, x)

    @staticmethod
    def rows(x: Tensors) -> int:
        """Returns the length of the first axis, the same of all tensors."""
        return len(x.raw()[0])

    @classmethod
    def places(cls, x: Tensors) -> Tensors:
        n = cls.rows(x)
        return x.map(lambda each: torch.arange(n, dtype=each.dtype, device=each.device) / n)

    @staticmethod
    def when(due: Any, function: Callable[..., Any], x: Tensors, *others: Tensors) -> Tensors:
        """Returns a function of those tensors of which it is due, and the others as they are."""
        flags = [bool(flag) for flag in for_each(due, len(x.raw()))]
        if not any(flags):
            return x
        columns = [own.keep().tensors() for own in (x, *others)]
        rows = [[own[i] for i, flag in enumerate(flags) if flag] for own in columns]
        made = iter(function(FUNCTIONS, *map(Tensors, rows)).tensors())
        return Tensors([next(made) if f else own for f, own in zip(flags, columns[0], strict=True)])

    @staticmethod
    def to_matrix(x: Tensors, outputs_first: bool) -> Tensors:
        del outputs_first  # so it is in PyTorch

        def matrix(each: Tensor) -> Tensor:
            rows = each.flatten(1)
            return rows if rows.shape[0] <= rows.shape[1] else rows.mT

        return x.viewed(matrix)

    @staticmethod
    def from_matrix(x: Tensors, like: Tensors, outputs_first: bool) -> Tensors:
        del outputs_first
        pairs = zip(x.keep().tensors(), like.tensors(), strict=True)
        return Tensors([(m if len(w) == m.shape[0] else m.mT).reshape(w.shape) for m, w in pairs])

    @staticmethod
    def of_sides(function: Callable[[int, int], Any], like: Tensors, outputs_first: bool) -> Any:
        del outputs_first
        shapes = [each.shape for each in like.tensors()]
        return together([function(shape[0], math.prod(shape[1:])) for shape in shapes])

    @staticmethod
    def means_of_outputs(x: Tensors, outputs_first: bool) -> Tensors:
        del outputs_first
        return Tensors([each.flatten(1).mean(1) for each in x.tensors()])

    @staticmethod
    def along_outputs(x: Tensors, like: Tensors, outputs_first: bool) -> Tensors:
        del outputs_first
        shapes = [(-1, *[1] * (each.dim() - 1)) for each in like.tensors()]
        pairs = zip(x.keep().tensors(), shapes, strict=True)
        return Tensors([each.reshape(shape) for each, shape in pairs])

    @staticmethod
    def split(x: Tensors, parts: int, axis: int) -> list[Tensors]:
        """Returns parts of one size along an axis."""
        return [x.viewed(functools.partial(_part, i, parts, axis)) for i in range(parts)]

    @staticmethod
    def concatenate(parts: list[Tensors], axis: int) -> Tensors:
        rows = zip(*(part.keep().tensors() for part in parts), strict=True)
        return Tensors([torch.cat(row, axis) for row in rows], own=True)

    @staticmethod
    def norm(x: Tensors, wide: bool = False) -> Scalars:
        del wide  # None is infinite or 0 that is not.
        return Scalars(norms(x.tensors()))

    @staticmethod
    def ratio(a: Scalars, b: Scalars, coefficient: Any = 1.0) -> Scalars:
        above, below = torch.stack(a.values), torch.stack(b.values)
        ratios = torch.where((above > 0) & (below > 0), coefficient * above / below, 1.0)
        return Scalars(ratios.unbind())


FUNCTIONS = Lists(torch)


class ListState(State):
    """What a formula calls `s`: the state of some variables, by the names of the slots.

    Slots move in place.
    """

    def __init__(self, slots: Mapping[str, list[Tensor]]):
        super().__init__({name: Slots(tensors) for name, tensors in slots.items()})

    def __setattr__(self, name: str, value: Any) -> None:
        slot, value = self._moving(name, value)
        torch._foreach_copy_(slot.raw(), value.tensors())

    def _moving(self, name: str, value: Any) -> tuple[Slots, Tensors]:
        """Returns a slot to be moved by a value, and the value for each of its tensors."""
        slot = getattr(self, name)
        if value is slot:
            value = slot.keep()
        moving = self._values[name] = slot.moving()
        if not isinstance(value, Tensors):
            numbers = for_each(value, len(moving.raw()))
            pairs = zip(moving.raw(), numbers, strict=True)
            value = Tensors([torch.as_tensor(x).to(tensor) for tensor, x in pairs])
        return moving, value

    def lerp(self, name: str, value: Any, share: Any) -> Slots:
        slot, value = self._moving(name, value)
        if isinstance(share, int | float):
            torch._foreach_lerp_(slot.raw(), value.tensors(), share)
        else:
            difference = value - slot
            torch._foreach_add_(slot.raw(), (difference * share).tensors())
        return slot

    def lerp_square(self, name: str, value: Any, share: Any) -> Slots:
        if not isinstance(share, int | float):
            return self.lerp(name, value * value, share)
        slot, value = self._moving(name, value)
        tensors = value.tensors()
        torch._foreach_mul_(slot.raw(), 1 - share)
        torch._foreach_addcmul_(slot.raw(), tensors, tensors, share)
        return slot

    def add_square(self, name: str, value: Any) -> Slots:
        slot, value = self._moving(name, value)
        tensors = value.tensors()
        torch._foreach_addcmul_(slot.raw(), tensors, tensors, 1)
        return slot

    def scale_add(self, name: str, factor: Any, value: Any) -> Slots:
        slot, value = self._moving(name, value)
        if not (isinstance(factor, int | float) and factor == 1):
            torch._foreach_mul_(slot.raw(), as_plain(factor))
        value.add_to(slot.raw())
        return slot
