"""The base classes of learning rates and warmups: a config that holds its own formula.

A formula is written once, over an array namespace `xp`: NumPy draws it, `keras.ops` or `jax.numpy`
trains with it, all in float64, in which steps are exact up to 2**53. It receives `step`, the number
of optimizer steps done, as a float array of any shape, and has no Python `if` on it. Where an
operation of `xp` might choose the dtype of a Python number by itself (`where`, the base of
`power`), the formula makes it an array like `step`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, cast

from annotated_types import Interval

from optimization.configs.errors import Problem, wrong_signature
from optimization.configs.fields import Steps, field
from optimization.configs.float32 import Float32Config
from optimization.configs.types import (
    REMAINING,
    REQUIRED,
    FirstSteps,
    Matching,
    NonNegativeFloat,
    Period,
    PositiveSteps,
    is_pending,
)

_FLOOR = "min_learning_rate"

Array = Any
"""A NumPy array or a tensor of one of Keras' backends."""
Namespace = Any
"""`numpy`, `jax.numpy` or `keras.ops`: what all have, under one name and with one meaning."""

Floor = NonNegativeFloat | None
"""The lowest rate of a learning rate; None for that of its formula."""
ScopeName = Annotated[str, Matching(r"^[A-Za-z0-9.][A-Za-z0-9_.>-]*$")]
"""The name of a schedule, which is the scope of its operations in a TensorFlow graph."""


def computed(config: Float32Config, value: Any, step: Array) -> Array:
    """Returns what the formula of `config` has computed for `step`, or says what it should be.

    Raises:
        TypeError: If it is neither a number nor an array with the axes of `step`.
    """
    is_number = isinstance(value, int | float)
    shape, wanted = () if is_number else getattr(value, "shape", None), getattr(step, "shape", ())
    if getattr(shape, "rank", 0) is None or getattr(wanted, "rank", 0) is None:
        return value  # TensorFlow knows no shape
    if shape is None or len(shape) not in (0, len(wanted)):
        got = f"{value!r:.60} ({type(value).__name__})" if shape is None else tuple(shape)
        raise TypeError(
            f"the formula of {type(config).__name__} must return a rate for each step, an array "
            f"of their shape {tuple(wanted)}; got {got}"
        )
    return value


def formula_mistakes(cls: type, base: type, arguments: str) -> Iterator[str]:
    """Yields what is wrong with the method `value`, the formula, of a class."""
    value: Any = getattr(cls, "value", None)
    if value is vars(base)["value"]:
        yield f"it has no formula: define `value({arguments})`"
    elif wrong := wrong_signature("`value`", value, arguments):
        yield wrong


class BaseLrConfig(Float32Config):
    """The base class of learning rates: functions of the number of optimizer steps done.

    A subclass is a dataclass with a method `value`. If it has a field `offset`, its formula
    receives `max(step - offset, 0)`: the schedule starts at step `offset` and until then holds its
    first value. (Model Garden extrapolates the formula to negative steps there, and loses `offset`
    when the schedule is saved.)

    >>> from optimization.schedules import curve
    >>> class Halved(BaseLrConfig):
    ...     every: int = 100
    ...     def value(self, step, xp):
    ...         return 0.5 ** xp.floor(step / self.every)
    >>> curve(Halved(every=50), None, [0, 49, 50, 100])
    array([1.  , 1.  , 0.5 , 0.25])

    Attributes:
        name: The name of the schedule.
        offset: The optimizer step at which the schedule starts; the first value holds until then.
        min_learning_rate: The lowest rate, in the unit of the others; None for that of the formula.
            A decay that has an end comes down to it, one that goes on stays at it. A warmup is not
            bound to it.
        per: How often the rate changes: each `step`, once an `epoch`, or each so many steps. The
            formula receives the steps of all that are whole, from which `offset` is taken.
    """

    offset = 0  # not annotated: a field only where a subclass makes it one
    min_learning_rate = cast("float | None", None)  # as `offset`
    own_floors: ClassVar[tuple[str, ...]] = ()  # fields with a lowest rate of the formula's own
    floor_shares: ClassVar[tuple[str, ...]] = ()  # those that are shares of the highest rate
    keras_class: ClassVar[type | None] = None  # set where a Keras class is the implementation
    peak_is_asked: ClassVar[bool] = True  # False: the highest value is no rate to come to
    _LEFT_OUT: ClassVar[tuple[str, ...]] = ("min_learning_rate", "per")

    per: Steps[Period] = field(default=1)

    @classmethod
    def misdeclared(cls) -> Iterator[str]:
        yield from super().misdeclared()
        if cls.at is BaseLrConfig.at and cls.keras_class is None:
            yield from formula_mistakes(cls, BaseLrConfig, "self, step, xp")

    def at(self, step: Array, xp: Namespace) -> Array:
        """Returns the learning rate after `step` optimizer steps, `offset` included."""
        done = xp.maximum(step - self.offset, 0.0) if self.offset else step
        return self.floored(self.value(done, xp), xp)

    def floored(self, value: Array, xp: Namespace) -> Array:
        """Returns rates, of which none is below `min_learning_rate`."""
        least = self.min_learning_rate
        return value if least is None else xp.maximum(value, least)

    def lowest(self, own: float) -> float:
        """Returns the rate to which a decay comes down: `min_learning_rate`, else its own."""
        return own if self.min_learning_rate is None else self.min_learning_rate

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings, those of the floor included."""
        problems, doubts = super().problems()
        if self.min_learning_rate is not None:
            problems += [
                self._problem("conflict", _FLOOR, text) for text in self._floor_conflicts()
            ]
        return problems, doubts

    def _floor_conflicts(self) -> Iterator[str]:
        least = self.min_learning_rate
        for own in self.own_floors:
            if getattr(self, own) != self._spec_of(own).default():
                yield f"cannot be set beside `{own}`, which says the lowest rate too: use one"
        for name in ("initial_learning_rate", "max_learning_rate"):
            highest = getattr(self, name, None)
            if isinstance(highest, float) and least is not None and least > highest:
                yield f"must be <= `{name}` {highest!r}, got {least!r}"

    def value(self, step: Array, xp: Namespace) -> Array:
        """Returns the formula's value `step` optimizer steps after its start."""
        raise NotImplementedError(f"{type(self).__name__} has no formula: define `value`")

    def fixed(self) -> "BaseLrConfig":
        """Returns what is computed for many steps: itself, or a copy that is ready for it."""
        return self

    def constant_value(self) -> float | None:
        """Returns the rate if it does not depend on the step, else None."""
        return None

    def end(self) -> tuple[str, int] | None:
        """Returns the field that says when the rate has come to its end, and that step.

        Steps count from `offset`. None: the rate goes on and on, as one with a period does.
        """
        return None

    def warmup_conflicts(self) -> Iterator[tuple[str, str]]:
        """Yields the field and the message of what contradicts a warmup before this rate."""
        return iter(())


class InitialLrConfig(BaseLrConfig):
    """The base class of learning rates that start from a rate of their own.

    Attributes:
        initial_learning_rate: lr0, the rate at step 0, >= 0.
    """

    name: ScopeName = ""
    initial_learning_rate: NonNegativeFloat = REQUIRED
    min_learning_rate: Floor = None


class DecayLrConfig(InitialLrConfig):
    """The base class of learning rates that come to an end after `decay_steps`.

    Attributes:
        decay_steps: The length of the decay; left out, it lasts to the end of the training.
    """

    decay_steps: Steps[PositiveSteps] = REMAINING

    def end(self) -> tuple[str, int] | None:
        return "decay_steps", self.decay_steps


class BaseWarmupConfig(Float32Config):
    """The base class of warmups: they raise the rate during the first `warmup_steps` steps.

    A subclass is a dataclass with a method `value`. What the warmup does to the learning rate that
    it precedes is the same for every warmup, and not its own affair (W = `warmup_steps`):

    - `mode: replace`: warmup(s) for s < W, then lr(s). The warmup leads to lr(W).
    - `mode: delay`: warmup(s) for s < W, then lr(s - W). The warmup leads to lr(0).
    - `mode: multiply`: lr(s) * warmup(s) / lr(0) for s < W, then lr(s), where the warmup leads to
      lr(0): a factor on the learning rate that ends at 1.

    Where libraries count otherwise, `counts_from: 1` has each step's rate be that of one more step,
    and with `ends_on: last` it is step W - 1 that has the rate to which the warmup leads. A formula
    need not know: it receives the count for s, and for W the count that has that rate.

    >>> from optimization.schedules import curve
    >>> from optimization.schedules.constant import ConstantLrConfig
    >>> class SquareWarmup(BaseWarmupConfig):
    ...     def value(self, step, target, xp):
    ...         return target * (step / self.warmup_steps) ** 2
    >>> curve(ConstantLrConfig(learning_rate=1.0), SquareWarmup(warmup_steps=10), [0, 5, 10])
    array([0.  , 0.25, 1.  ])

    Attributes:
        name: The name of the schedule.
        warmup_steps: W, the length of the warmup, 0 for none.
        mode: `replace`, `delay` or `multiply`; see `BaseWarmupConfig`.
        leads_to: With `mode: replace`, `rate` for lr(W), which the warmup meets; `peak` for lr(0),
            from which the rate then jumps to lr(W), as in timm.
        counts_from: What the warmup counts step 0 as: 0, or 1, so that the first rate is not 0.
        ends_on: The step that has the rate to which the warmup leads: `next`, W, the first one
            after the warmup, or `last`, W - 1, the last one of the warmup.
        per: How often the rate changes: each `step`, once an `epoch`, or each so many steps. What
            is counted, as by `counts_from`, is counted in these.
    """

    warmup_learning_rate = 0.0  # as `offset` above
    keras_class: ClassVar[type | None] = None
    _LEFT_OUT: ClassVar[tuple[str, ...]] = ("leads_to", "counts_from", "ends_on", "per")

    warmup_steps: Steps[FirstSteps] = REQUIRED
    mode: Literal["replace", "delay", "multiply"] = "replace"
    leads_to: Literal["rate", "peak"] = "rate"
    counts_from: Annotated[int, Interval(ge=0, le=1)] = 0
    ends_on: Literal["next", "last"] = "next"
    per: Steps[Period] = field(default=1)

    @classmethod
    def misdeclared(cls) -> Iterator[str]:
        yield from super().misdeclared()
        if cls.keras_class is None:
            yield from formula_mistakes(cls, BaseWarmupConfig, "self, step, target, xp")

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings, those of the way of counting included."""
        problems, doubts = super().problems()
        return problems + [self._problem("conflict", *each) for each in self._conflicts()], doubts

    def _conflicts(self) -> Iterator[tuple[str, str]]:
        if self.leads_to == "peak" and self.mode != "replace":
            yield "leads_to", f"needs `mode: replace`; with `{self.mode}` it is lr(0) as it is"
        steps, per = self.warmup_steps, self.per
        if self.ends_on == "next" or steps is REQUIRED or is_pending((steps, per)):
            return
        if 0 < steps < per * (2 - self.counts_from):
            what = f"is {steps}" if per == 1 else f"{steps} are not two of `per` {per}"
            message = (
                f"cannot be `last` where `warmup_steps` {what}: the first is the start of the "
            )
            yield "ends_on", f"{message}warmup; write a longer one, or `counts_from: 1`"

    @property
    def target_step(self) -> int:
        """The optimizer step that has the rate to which the warmup leads."""
        return self.warmup_steps - self.per * (self.ends_on == "last")

    def value(self, step: Array, target: float, xp: Namespace) -> Array:
        """Returns the rate at `step`, at most `warmup_steps`, on the way to `target`."""
        raise NotImplementedError(f"{type(self).__name__} has no formula: define `value`")
