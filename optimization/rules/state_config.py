"""`StateConfig`: how precisely the state of an optimizer is kept, and weights in bfloat16."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from optimization.configs.base import Config
from optimization.configs.errors import did_you_mean
from optimization.configs.types import NonNegativeInt


class StateConfig(Config):
    """Keeps moments in bfloat16: half the memory, and updates that are still computed in float32.

    Each update reads the state into float32, computes, and rounds what it stores. A number of
    bfloat16 has 8 bits: a mean that moves by less than 1/512 of itself stays where it is when it is
    rounded to the nearest number, as a second moment with `beta_2` above 0.998 does. Stochastic
    rounding goes up or down with the probabilities by which the mean is the exact number, by bits
    that are a function of the seed, the update, the variable and the place in it: a run that is
    resumed goes on as if it had not been interrupted, and replicas agree.

    >>> StateConfig(dtype="bfloat16").rounding
    'stochastic'

    Attributes:
        dtype: In which moments are kept: `float32`, or float64 where the weights are, or
            `bfloat16`. Sums, counts, rows and columns, and copies of weights stay in float32.
        rounding: Of what is kept in `bfloat16`: `stochastic`, or to the `nearest`.
        slots: The names of the slots that are kept so, such as [momentum]; None for all that can.
        weights: How weights in bfloat16 are updated: through float32 `copies`, or without them,
            rounded after each update: `stochastic`, or to the `nearest`, where steps that are small
            beside a weight are lost.
        seed: That of the bits.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    slots: tuple[str, ...] | None = None
    weights: Literal["copies", "stochastic", "nearest"] = "copies"
    seed: NonNegativeInt = 0

    def check(self) -> Iterator[tuple[str, str]]:
        usual = type(self)()
        if self.dtype == "float32":
            for name in ("rounding", "slots"):
                if getattr(self, name) != getattr(usual, name):
                    yield name, "needs `dtype: bfloat16`"
        rounds = self.weights == "stochastic" or (
            self.dtype == "bfloat16" and self.rounding == "stochastic"
        )
        if self.seed != usual.seed and not rounds:
            yield "seed", "needs stochastic rounding, of the state or of weights"
        if self.slots is not None and not self.slots:
            yield "slots", "must name a slot; null is all that can be kept in bfloat16"

    @property
    def lowers(self) -> bool:
        """Whether any state is kept in bfloat16."""
        return self.dtype == "bfloat16"

    @property
    def has_copies(self) -> bool:
        """Whether weights in bfloat16 have float32 copies."""
        return self.weights == "copies"

    @property
    def is_rounded(self) -> bool:
        """Whether what an update has moved is rounded into what is kept, weights included."""
        return self.lowers or not self.has_copies

    def keeps_low(self, slot: Any) -> bool:
        """Says whether a slot of a rule is kept in bfloat16."""
        return self.lowers and slot.may_be_low and (self.slots is None or slot.name in self.slots)

    def wrong_for(self, slots: Sequence[Any]) -> Iterator[tuple[str, str]]:
        """Yields the field and the message of what it asks of slots that these can't have."""
        may = list(dict.fromkeys(slot.name for slot in slots if slot.may_be_low))
        if self.lowers and not may:
            reasons = dict.fromkeys(f"{slot.name}: {slot.needs_float32}" for slot in slots)
            why = f" stays in float32 ({'; '.join(reasons)})" if reasons else " is nothing"
            yield "dtype", f"there is no state to keep in bfloat16: what the optimizer keeps{why}"
            return
        for name in self.slots or ():
            found = [slot for slot in slots if slot.name == name]
            if not found:
                near = did_you_mean(name, may)
                message = f"there is no slot {name!r}{near or ''}; {', '.join(may)} can be bfloat16"
                yield "slots", message
            elif name not in may:
                yield "slots", f"{name!r} stays in float32: it is {found[0].needs_float32}"
