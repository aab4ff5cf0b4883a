"""The functions that formulas compute with, over arrays that do not change."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from optimization.configs.errors import nearest_or_all
from optimization.matching.matrices import flattened

_OF_MODULES = (
    *("abs", "sqrt", "sign", "square", "power", "maximum", "minimum", "where", "clip", "expm1"),
    *("mean", "sum", "expand_dims", "reshape", "matmul", "swapaxes", "split"),
    *("concatenate", "argsort", "take", "flip"),
)


def function_names() -> list[str]:
    """Returns the names of the functions that a formula may use."""
    own = [name for name, member in vars(Arrays).items() if callable(member)]
    return sorted([*_OF_MODULES, *(name for name in own if not name.startswith("_"))])


class Arrays:
    """What a formula calls `xp`: functions of NumPy, `jax.numpy` or `keras.ops`, and more.

    From these modules come abs, sqrt, sign, square, power, maximum, minimum, where, clip, expm1,
    mean, sum, expand_dims, reshape, matmul, swapaxes, split, concatenate, argsort, take and flip;
    the others are the methods of this class. PyTorch's lists of tensors have the same functions.
    """

    def __init__(self, module: Any):
        self.module = module

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_MODULES:
            near = nearest_or_all(name, function_names())
            raise AttributeError(f"a formula has no function {name!r}{near}")
        setattr(self, name, getattr(self.module, name))
        return getattr(self, name)

    def rsqrt(self, x: Any) -> Any:
        """Returns 1 / sqrt(x)."""
        return 1 / self.sqrt(x)

    def log(self, x: Any) -> Any:
        """Returns the natural logarithm, exact to the last bits where x is a number, no array."""
        if isinstance(x, float):
            return math.log(x) if x > 0 else -math.inf
        return self.module.log(x)

    def keep(self, x: Any) -> Any:
        """Returns x, which may be used more than once."""
        return x

    def bounded(self, x: Any, most: float, tells: bool = True) -> Any:
        """Returns x, kept, with `most` and the sign of x where |x| is larger, and NaN if infinite.

        In float64 it is x: what float32 can't hold is no matter there. Without `tells` the infinite
        is `most` too, which XLA makes one with each of the operations that use it.
        """
        x = self.keep(x)
        if self.resolution(x) < 1e-10:
            return x
        found = self.clip(x, -most, most)
        return self.keep(found + 0.0 * x if tells else found)

    def sum_along(
        self, x: Any, start: Any, end: Any, most: float, is_within: Callable[[], Any]
    ) -> Any:
        """Returns the sum of x (start - end), of which x is `bounded`, and the infinite `most`.

        `is_within` may say that no |x| is larger than `most`: then no bound has to be computed.
        """
        return self.sum(self.bounded(x, most, tells=False) * (start - end))

    def lerp(self, x: Any, y: Any, share: Any) -> Any:
        """Returns what is a share of the way from x to y."""
        return x + (y - x) * share

    def one_minus_power(self, beta: Any, t: Any) -> Any:
        """Returns 1 - beta^t, exact to the last bits where beta is a number, not an array.

        With beta 0.999 the difference itself would be wrong by 6e-5 of its value at the first step,
        in float32.
        """
        if isinstance(beta, float) and beta > 0:
            return -self.expm1(t * math.log(beta))
        return 1 - beta**t

    def to_matrix(self, x: Any, outputs_first: bool) -> Any:
        """Returns a matrix, or a kernel as one, with its shorter axis first."""
        rows, columns = flattened(tuple(x.shape), outputs_first)
        x = self.reshape(x, (rows, columns))
        return x if rows <= columns else self.swapaxes(x, 0, 1)

    def from_matrix(self, x: Any, like: Any, outputs_first: bool) -> Any:
        """Returns what `to_matrix` returned in the form that it had, that of another array."""
        rows, columns = flattened(tuple(like.shape), outputs_first)
        return self.reshape(x if rows <= columns else self.swapaxes(x, 0, 1), like.shape)

    def of_sides(self, function: Callable[[int, int], Any], like: Any, outputs_first: bool) -> Any:
        """Returns a function of the number of outputs and of inputs of a matrix, or a kernel."""
        rows, columns = flattened(tuple(like.shape), outputs_first)
        return function(rows, columns) if outputs_first else function(columns, rows)

    def means_of_outputs(self, x: Any, outputs_first: bool) -> Any:
        """Returns the mean of what each output has, a vector."""
        axes = range(1, len(x.shape)) if outputs_first else range(len(x.shape) - 1)
        return self.mean(x, axis=tuple(axes))

    def along_outputs(self, x: Any, like: Any, outputs_first: bool) -> Any:
        """Returns a vector of numbers of the outputs, to compute with an array of such outputs."""
        ones = (1,) * (len(like.shape) - 1)
        return self.reshape(x, (-1, *ones) if outputs_first else (*ones, -1))

    def centered(self, x: Any, axes: Sequence[int]) -> Any:
        """Returns x less its mean over some axes, those of the inputs of a variable."""
        return x - self.mean(x, axis=tuple(axes), keepdims=True) if axes else x

    def cast(self, x: Any, like: Any) -> Any:
        """Returns x in the dtype of a name, or in that of another array."""
        return self.module.asarray(x, dtype=like if isinstance(like, str) else like.dtype)

    def matmul_add(
        self, x: Any, y: Any, z: Any, factors: tuple[Any, Any], dtype: str | None = None
    ) -> Any:
        """Returns a x y + b z, of matrices and two factors.

        Those of a dtype that is given are added in float32, and rounded to it then.
        """
        product, (a, b) = self.matmul(x, y), factors
        if dtype is None:
            return a * product + b * z
        total = a * self.cast(product, "float32") + b * self.cast(z, "float32")
        return self.cast(total, dtype)

    def steps_since(self, count: Any, start: int, like: Any) -> Any:
        """Returns count - start in the dtype of `like`, exact near the start, however late."""
        return self.module.asarray(count - start, dtype=like.dtype)

    def recurs(self, count: Any, period: int, like: Any) -> Any:
        """Returns 1 where a count is a multiple of a period, else 0, in the dtype of `like`."""
        return self.module.asarray(count % period == 0, dtype=like.dtype)

    def when(self, due: Any, function: Callable[..., Any], x: Any, *others: Any) -> Any:
        """Returns `function(xp, x, *others)`, of x's shape, where that is due, else x.

        It is computed only then, also in compiled functions: for what is expensive. The function is
        one of a module, of arrays alone: it may be traced once for all of a shape.
        """
        return function(self, x, *others) if due else x

    def eigh(self, x: Any) -> Any:
        """Returns the eigenvalues of a symmetric matrix, the least first, and the eigenvectors."""
        return self.module.linalg.eigh(x)

    def qr(self, x: Any) -> Any:
        """Returns an orthogonal matrix and a triangular one, of which x is the product."""
        return self.module.linalg.qr(x)

    def rows(self, x: Any) -> int:
        """Returns the length of the first axis."""
        return x.shape[0]

    def places(self, x: Any) -> Any:
        """Returns 0, 1/n, ..., (n - 1)/n for the n rows of x, in its dtype."""
        n = self.rows(x)
        return self.module.arange(n, dtype=x.dtype) / n

    def size(self, x: Any) -> Any:
        """Returns how many entries a variable has, of which x is of the shape."""
        return math.prod(x.shape)

    def resolution(self, x: Any) -> float:
        """Returns the distance from 1 to the next number of the dtype of x."""
        return float(self.module.finfo(x.dtype).eps)

    def norm(self, x: Any, wide: bool = False) -> Any:
        """Returns the L2 norm, a scalar; `wide` where squares may be infinite or 0."""
        if wide:
            largest = self.module.max(self.abs(x))
            unit = self.where(largest > 0, largest, self.module.ones_like(largest))
            return unit * self.sqrt(self.module.sum(self.square(x / unit)))
        return self.sqrt(self.module.sum(self.square(x)))

    def ratio(self, a: Any, b: Any, coefficient: Any = 1.0) -> Any:
        """Returns coefficient * a / b, or 1 where one of the two norms is 0."""
        defined = (a > 0) & (b > 0)
        ones = self.module.ones_like(b)
        return self.where(defined, coefficient * a / self.where(defined, b, ones), ones)


def no_slot(name: str, slots: Iterable[str]) -> AttributeError:
    """Returns the error of a formula that asks for a slot that there is not."""
    return AttributeError(f"there is no slot {name!r}{nearest_or_all(name, slots)}")


def not_the_step(rule: Any, got: Any, shape: Sequence[int]) -> TypeError:
    """Returns the error of a formula that returns something else than a step.

    Args:
        rule: The rule.
        got: What the formula has returned, or its shape.
        shape: That of the weight.
    """
    found: Any = got if isinstance(got, tuple) else getattr(got, "shape", None)
    is_shape = found is not None and all(isinstance(n, int | None) for n in found)
    text = f"the shape {tuple(found)}" if is_shape else f"{got!r:.60} ({type(got).__name__})"
    return TypeError(
        f"the formula of {type(rule).__name__} must return what is subtracted from a weight, an "
        f"array of its shape {tuple(shape)}; got {text}"
    )


class State:
    """What a formula calls `s`: the state of a variable, by the names of the slots.

    Args:
        values: Arrays, by name.
        negative: The names of those that are kept with the other sign.
    """

    def __init__(self, values: Mapping[str, Any], negative: Collection[str] = ()):
        self.__dict__["_values"] = dict(values)
        self.__dict__["_moved"] = {}
        self.__dict__["_negative"] = negative

    def __getattr__(self, name: str) -> Any:
        value = self._kept(name)
        return -value if name in self._negative else value

    def _kept(self, name: str) -> Any:
        if name not in self._values:
            raise no_slot(name, self._values)
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._kept(name)
        self._values[name] = self._moved[name] = -value if name in self._negative else value

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def moved(self) -> dict[str, Any]:
        """Returns the values that were set, by name, as they are kept."""
        return self._moved

    def lerp(self, name: str, value: Any, share: Any) -> Any:
        """Moves a slot a share of the way to a value; returns what it is then."""
        old = getattr(self, name)
        setattr(self, name, old + (value - old) * share)
        return getattr(self, name)

    def lerp_square(self, name: str, value: Any, share: Any) -> Any:
        """Moves a slot a share of the way to the square of a value."""
        return self.lerp(name, value * value, share)

    def add_square(self, name: str, value: Any) -> Any:
        """Adds the square of a value to a slot."""
        setattr(self, name, getattr(self, name) + value * value)
        return getattr(self, name)

    def scale_add(self, name: str, factor: Any, value: Any) -> Any:
        """Multiplies a slot, and adds a value."""
        kept = factor * self._kept(name)
        # XLA moves what is kept in place where the step is computed from it.
        kept = kept - value if name in self._negative else kept + value
        self._values[name] = self._moved[name] = kept
        return getattr(self, name)
