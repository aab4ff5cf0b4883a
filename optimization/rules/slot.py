"""`Slot`: what an optimizer keeps of each variable."""

import dataclasses
import operator
import typing
from collections.abc import Callable, Sequence

from optimization.configs.errors import describe, did_you_mean
from optimization.rules.numbers import Numbers, given

_DTYPES = ("float32", "float64", "bfloat16", "float16", "int", "int32", "int64")


@dataclasses.dataclass(frozen=True)
class Slot:
    """What an optimizer keeps of each variable, such as a momentum."""

    name: str  # what the formula calls it, and what the name of Keras' variable ends with
    plural: str  # in `variables_by_path()` on Keras; "" for none there
    native: str  # its key in the state of a `torch.optim.Optimizer`; "" for none there
    start: float | str = 0.0  # the number that it starts from, or the field that says it
    turn: int = 0  # Keras makes slots variable by variable, first those of turn 0, then 1, 2
    # Whether a variable of these numbers has it, and in which shape; None: that of the variable.
    when: Callable[[Numbers], bool] = lambda h: True
    shape: Callable[[Sequence[int], Numbers], Sequence[int]] | None = None
    dtype: str | None = None  # None: that of the variable, float32 at least
    negative: bool = False  # whether Keras keeps it with the other sign
    of_weight: bool = False  # natively: whether it starts as a copy of the variable
    exact: str = ""  # why it stays in float32 where the state is bfloat16; "" where it need not

    def __post_init__(self) -> None:
        for name, needed in (("when", False), ("shape", True)):
            value = getattr(self, name)
            if not (callable(value) or (needed and value is None)):
                takes = "of numbers" if name == "when" else "of the variable's shape and numbers"
                raise TypeError(
                    f"`{name}` of the slot {self.name!r} must be a function {takes}, "
                    f"got {describe(value)}"
                )
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise TypeError(
                f"`dtype` of the slot {self.name!r} must be one of {', '.join(_DTYPES)}, "
                f"got {describe(self.dtype)}{did_you_mean(self.dtype, _DTYPES)}"
            )

    @property
    def needs_float32(self) -> str:
        """Why it can't be kept in bfloat16; "" where it can."""
        shaped = "numbers of rows, columns or the whole" if self.shape is not None else ""
        of_weight = "a copy of the weight" if self.of_weight else ""
        return (
            self.exact or shaped or of_weight or (f"a number of {self.dtype}" if self.dtype else "")
        )

    @property
    def may_be_low(self) -> bool:
        """Whether it can be kept in bfloat16."""
        return not self.needs_float32

    def shape_of(self, shape: Sequence[int], h: Numbers) -> tuple[int, ...] | None:
        """Returns the shape for a variable of another one; None where both are the same."""
        if self.shape is None:
            return None
        own = self.shape(shape, h)
        try:
            return tuple(operator.index(length) for length in own)
        except TypeError:
            raise TypeError(
                f"`shape` of the slot {self.name!r} must return a list of integers for a variable "
                f"of the shape {tuple(shape)}, got {describe(own)}"
            ) from None

    def axes_of(self, shape: Sequence[int], h: Numbers) -> tuple[int, ...] | None:
        """Returns which axes of a variable of a shape it has; None for a shape of its own making.

        Over several devices it is laid out along these as the variable is.
        """
        places = tuple(range(len(shape)))
        own = self.shape_of(shape, h)
        if own is None:
            return places
        # Of axes whose lengths are their places, the lengths say which are kept.
        kept = typing.cast("tuple[int, ...]", self.shape_of(places, h))
        chosen = len({*kept}) == len(kept) and {*kept} <= {*places}
        return kept if chosen and own == tuple(shape[axis] for axis in kept) else None

    def first(self, h: Numbers) -> float:
        """Returns the number that it starts from."""
        return getattr(h, self.start) if isinstance(self.start, str) else self.start


MODIFIER_SLOTS = (
    Slot(
        *("last_gradient", "last_gradients", "last_grad"),
        turn=3,
        when=lambda h: given(vars(h).get("mars")),
    ),
    Slot(
        *("lead", "leads", "lead"),
        turn=3,
        when=lambda h: given(vars(h).get("lookahead")),
        exact="a sum of steps",
    ),
)
"""What modifiers keep, of any rule."""
