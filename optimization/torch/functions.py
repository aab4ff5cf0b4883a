"""The functions that formulas compute with, over lists of tensors."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimization.configs.errors import nearest_or_all
from optimization.rules.arrays import function_names
from optimization.torch.gradients import norms
from optimization.torch.lists import Scalars, Tensors, as_plain


class Lists:
    """What a formula calls `xp`, for lists of tensors, numbers, and numbers of each tensor.

    What is not described here is as in NumPy.
    """

    def __getattr__(self, name: str) -> Any:
        near = nearest_or_all(name, function_names())
        raise AttributeError(f"a formula has no function {name!r}{near}")

    @staticmethod
    def keep(x: Any) -> Any:
        """Returns x, which may be used more than once."""
        return x.keep() if isinstance(x, Tensors) else x

    @staticmethod
    def abs(x: Any) -> Any:
        return _each(x, "abs", abs)

    @staticmethod
    def sqrt(x: Any) -> Any:
        return _each(x, "sqrt", lambda y: y.sqrt() if isinstance(y, Tensor) else math.sqrt(y))

    @classmethod
    def rsqrt(cls, x: Any) -> Any:
        return x.apply("rsqrt") if isinstance(x, Tensors) else 1 / cls.sqrt(x)

    @staticmethod
    def sign(x: Tensors) -> Tensors:
        return x.apply("sign")

    @staticmethod
    def square(x: Any) -> Any:
        return x * x

    @staticmethod
    def power(x: Any, y: Any) -> Any:
        return x**y

    @staticmethod
    def expm1(x: Any) -> Any:
        return _each(x, "expm1", lambda y: y.expm1() if isinstance(y, Tensor) else math.expm1(y))

    @staticmethod
    def maximum(x: Any, y: Any) -> Any:
        return _extreme(x, y, "maximum")

    @staticmethod
    def minimum(x: Any, y: Any) -> Any:
        return _extreme(x, y, "minimum")

    @staticmethod
    def mean(x: Tensors, axis: Any = None, keepdims: bool = False) -> Any:
        return _reduced(x, "mean", axis, keepdims)

    @staticmethod
    def sum(x: Tensors, axis: Any = None, keepdims: bool = False) -> Any:
        return _reduced(x, "sum", axis, keepdims)

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
    def resolution(x: Tensors) -> float:
        """Returns the distance from 1 to the next number of the dtype of x."""
        return torch.finfo(x.raw()[0].dtype).eps

    @staticmethod
    def steps_since(count: Any, start: int, like: Tensors) -> Any:
        """Returns count - start: a float64, which is exact."""
        return count - start

    @staticmethod
    def clip(x: Tensors, least: float, most: float) -> Tensors:
        return x.apply("clamp_min", least).apply("clamp_max", most)

    @staticmethod
    def lerp(x: Tensors, y: Tensors, share: float) -> Tensors:
        """Returns what is a share of the way from x to y."""
        return Tensors(list(torch._foreach_lerp(x.tensors(), y.tensors(), share)), own=True)

    @staticmethod
    def one_minus_power(beta: Any, t: Any) -> Any:
        """Returns 1 - beta^t, exact to the last bits where that is a small difference."""

        def of(t: Any) -> Any:
            if beta == 0 or isinstance(t, Tensor) or isinstance(beta, Tensor):
                return 1 - beta**t
            return -math.expm1(t * math.log(beta))

        return t.map(of) if isinstance(t, Scalars) else of(t)

    @staticmethod
    def where(condition: Any, x: Any, y: Any) -> Any:
        if isinstance(condition, Tensors) or not isinstance(condition, Scalars):
            return _chosen(condition, x, y)
        if isinstance(x, Tensors) or isinstance(y, Tensors):
            conditions = Tensors([torch.as_tensor(each) for each in condition.values])
            return _chosen(conditions, x, y)
        return condition.map(_one_of, x, y)

    @staticmethod
    def matmul(x: Tensors, y: Tensors) -> Tensors:
        pairs = zip(x.tensors(), y.tensors(), strict=True)
        return Tensors([a @ b for a, b in pairs], own=True)

    @staticmethod
    def swapaxes(x: Tensors, first: int, second: int) -> Tensors:
        """Returns tensors with two axes exchanged, which share the memory of these."""
        return x.viewed(lambda each: each.swapaxes(first, second))

    @staticmethod
    def to_matrix(x: Tensors, outputs_first: bool) -> Tensors:
        """Returns matrices, or kernels as such, with their shorter axis first."""
        del outputs_first  # so it is in PyTorch

        def matrix(each: Tensor) -> Tensor:
            rows = each.flatten(1)
            return rows if rows.shape[0] <= rows.shape[1] else rows.mT

        return x.viewed(matrix)

    @staticmethod
    def from_matrix(x: Tensors, like: Tensors, outputs_first: bool) -> Tensors:
        """Returns what `to_matrix` returned in the form that it had, that of other tensors."""
        del outputs_first
        pairs = zip(x.keep().tensors(), like.tensors(), strict=True)
        return Tensors([(m if len(w) == m.shape[0] else m.mT).reshape(w.shape) for m, w in pairs])

    @staticmethod
    def width(x: Tensors) -> Scalars:
        """Returns the length of the last axis of each."""
        return Scalars([each.shape[-1] for each in x.tensors()])

    @staticmethod
    def norm(x: Tensors, wide: bool = False) -> Scalars:
        """Returns the L2 norm of each tensor."""
        del wide  # None is infinite or 0 that is not.
        return Scalars(norms(x.tensors()))

    @staticmethod
    def ratio(a: Scalars, b: Scalars, coefficient: Any = 1.0) -> Scalars:
        """Returns coefficient * a / b, or 1 where one of the two norms is 0."""
        above, below = torch.stack(a.values), torch.stack(b.values)
        ratios = torch.where((above > 0) & (below > 0), coefficient * above / below, 1.0)
        return Scalars(ratios.unbind())


def _chosen(condition: Any, x: Any, y: Any) -> Any:
    return (
        condition.map(_one_of, x, y) if isinstance(condition, Tensors) else _one_of(condition, x, y)
    )


def _one_of(condition: Any, x: Any, y: Any) -> Any:
    if not isinstance(condition, Tensor):
        return x if condition else y
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        x = torch.tensor(x, dtype=torch.float64, device=condition.device)  # not the usual float32
    return torch.where(condition, x, y)


def _reduced(x: Tensors, name: str, axis: Any, keepdims: bool) -> Any:
    if axis is None and not keepdims:
        return Scalars([getattr(tensor, name)() for tensor in x.tensors()])
    axes = axis if axis is not None else ()
    return x.map(lambda tensor: getattr(tensor, name)(dim=axes, keepdim=keepdims))


def _each(x: Any, name: str, function: Callable[[Any], Any]) -> Any:
    if isinstance(x, Tensors):
        return x.apply(name)
    return x.map(function) if isinstance(x, Scalars) else function(x)


def _extreme(x: Any, y: Any, name: str) -> Any:
    if not isinstance(x, Tensors) and isinstance(y, Tensors):
        x, y = y, x
    if isinstance(x, Tensors):
        other = y.tensors() if isinstance(y, Tensors) else as_plain(y)
        return x.apply(name, other)

    def of(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return getattr(torch, name)(a, b)
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            tensor, bound = (a, b) if isinstance(a, Tensor) else (b, a)
            return tensor.clamp(**{"min" if name == "maximum" else "max": bound})
        return max(a, b) if name == "maximum" else min(a, b)

    if isinstance(x, Scalars):
        return x.map(of, y)
    return y.map(of, x) if isinstance(y, Scalars) else of(x, y)


FUNCTIONS = Lists()
