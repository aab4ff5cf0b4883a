"""Hyperparameters of the inner optimizers that follow a schedule."""

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from optimization.keras.inner import argument_of
from optimization.keras.members import Member, replaced

_ON_TORCH = keras.backend.backend() == "torch"


class HyperparameterSchedules:
    """Gives inner optimizers the scheduled values, for the time of an update.

    Afterwards they hold the numbers they were made with, so these are what is serialized. A
    hyperparameter that is 0 or None stays so: the optimizer makes no state for it, or leaves out
    what it does.

    Args:
        schedules: Functions of the number of updates taken, by hyperparameter.
        optimizers: The default optimizer and those of groups with one of their own.
        clips: The clips of the step, which may follow one too, and their bounds.
    """

    def __init__(
        self,
        schedules: Mapping[str, Callable[[Any], Any]] | None,
        optimizers: Sequence[keras.optimizers.Optimizer],
        clips: Mapping[str, float | None],
    ):
        self.schedules = dict(schedules or {})
        self._targets: list[tuple[str, keras.optimizers.Optimizer, str]] = []
        for name, schedule in self.schedules.items():
            if not callable(schedule):
                raise TypeError(
                    f"Argument `schedules` must hold functions of the step, received: {name}="
                    f"{schedule!r}"
                )
            if name not in clips:
                self._check(name, optimizers)
            elif not clips[name]:
                raise ValueError(
                    f"`{name}` follows a schedule and must be set to the number that it starts "
                    f"from, received: {name}={clips[name]}"
                )
        self._clips = clips.keys()

    def _check(self, name: str, optimizers: Sequence[keras.optimizers.Optimizer]) -> None:
        if name == "learning_rate":
            raise ValueError(
                "Argument `schedules` is for other hyperparameters: give the schedule of the "
                "learning rate to the optimizer."
            )
        attributes = [(o, _attribute(o, name)) for o in optimizers]
        having = [bool(getattr(o, attribute)) for o, attribute in attributes if attribute]
        if not having:
            argument_of(optimizers[0], name)  # raises, with the nearest names
            raise ValueError(
                f"Argument `schedules` must hold hyperparameters that are numbers, received: {name}"
            )
        default_has_it = attributes[0][1] is not None
        if not (having[0] if default_has_it else any(having)):
            raise ValueError(
                f"Hyperparameter {name!r} follows a schedule and must start from a number other "
                "than 0: with 0 the optimizer leaves out what belongs to it."
            )

    def build(self, members: Sequence[Member]) -> None:
        """Finds the members that have the hyperparameters, and have not replaced them."""
        for member in members:
            optimizer = member.optimizer
            others = replaced(optimizer, member.group)
            for name in self.schedules.keys() - self._clips:
                attribute = _attribute(optimizer, name)
                if not attribute or attribute in others or not getattr(optimizer, attribute):
                    continue
                if member.part is not None:
                    member.part.follows[attribute] = name
                else:
                    self._targets.append((name, optimizer, attribute))

    def values(self, step: Any) -> dict[str, Any]:
        """Returns the value of each hyperparameter after `step` updates, float32 scalars."""
        return {
            name: ops.cast(schedule(step), "float32") for name, schedule in self.schedules.items()
        }

    @contextlib.contextmanager
    def applied(self, values: Mapping[str, Any]) -> Iterator[None]:
        """Has the optimizers use what `values` returned inside a `with` block."""
        plain = []
        for name, optimizer, attribute in self._targets:
            number = getattr(optimizer, attribute)
            # Replicas take turns inside this block: another may have been here already.
            number = getattr(number, "plain", number)
            plain.append(number)
            value = values[name]
            standing = _Float(float(value), number) if _ON_TORCH else _Tensor(value, number)
            setattr(optimizer, attribute, standing)
        try:
            yield
        finally:
            for (_, optimizer, attribute), number in zip(self._targets, plain, strict=True):
                setattr(optimizer, attribute, number)


def _attribute(optimizer: keras.optimizers.Optimizer, name: str) -> str | None:
    """Returns where an optimizer keeps a numeric hyperparameter; None if it has none."""
    try:
        attribute = argument_of(optimizer, name)
    except ValueError:
        return None
    value = getattr(optimizer, attribute, None)
    known = hasattr(optimizer, attribute) and not isinstance(value, bool)
    return attribute if known and (value is None or isinstance(value, int | float)) else None


def _compared(function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda self, other: function(self.plain, other)


class _ComparedAs:
    """Compares like a plain number: Keras chooses by `if self.momentum != 0` what to compute."""

    plain: float

    __eq__, __ne__ = _compared(operator.eq), _compared(operator.ne)
    __lt__, __le__ = _compared(operator.lt), _compared(operator.le)
    __gt__, __ge__ = _compared(operator.gt), _compared(operator.ge)

    def __bool__(self) -> bool:
        return bool(self.plain)

    def __hash__(self) -> int:
        return hash(self.plain)


class _Float(_ComparedAs, float):
    """A number, for PyTorch, whose functions want Python's."""

    dtype = float  # Keras knows Python's number by its type, which this is not

    def __new__(cls, value: float, plain: float):
        number = float.__new__(cls, value)
        number.plain = plain
        return number


def _arithmetic(function: Callable[[Any, Any], Any]) -> tuple[Callable, Callable]:
    return (
        lambda self, other: self._combined(other, function),
        lambda self, other: self._combined(other, lambda a, b: function(b, a)),
    )


class _Tensor(_ComparedAs):
    """A scalar tensor, possibly one that is known only when a compiled function runs."""

    shape = ()
    dtype = "float32"

    def __init__(self, value: Any, plain: float):
        self._value = value
        self.plain = plain

    def _combined(self, other: Any, function: Callable[[Any, Any], Any]) -> Any:
        if isinstance(other, int | float):
            return _Tensor(function(self._value, other), function(self.plain, other))
        if isinstance(other, _Tensor):
            return _Tensor(function(self._value, other._value), function(self.plain, other.plain))
        other = ops.convert_to_tensor(other)
        return function(ops.cast(self._value, other.dtype), other)

    __add__, __radd__ = _arithmetic(operator.add)
    __sub__, __rsub__ = _arithmetic(operator.sub)
    __mul__, __rmul__ = _arithmetic(operator.mul)
    __truediv__, __rtruediv__ = _arithmetic(operator.truediv)
    __pow__, __rpow__ = _arithmetic(operator.pow)

    def __neg__(self) -> "_Tensor":
        return _Tensor(-self._value, -self.plain)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self._value if dtype is None else ops.cast(self._value, dtype.name)

    def __jax_array__(self) -> Any:
        return self._value
