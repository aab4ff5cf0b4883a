"""How fast averages of weights follow: the share of the way that they move with each update."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from optimization.schedules.base import Array, Namespace
from optimization.schedules.formulas import half_cosine

Growth = bool | Literal["power", "exponential", "cosine"]
"""How the decay of an average grows, as `EMAConfig.dynamic_decay` has it."""


@dataclasses.dataclass(kw_only=True)
class AverageDecay:
    """The decay of an average of the weights, by the formulas of `EMAConfig`.

    >>> import numpy as np
    >>> float(AverageDecay(average_decay=0.9).moved_share(5, 5, np).round(6))
    0.6

    Args:
        average_decay: d0, in [0, 1); a function of the updates done before, with values in [0, 1],
            where it follows a schedule.
        start_step: As in `EMAConfig`, >= 0.
        dynamic_decay: As in `EMAConfig`.
        time_constant: As in `EMAConfig`, > 0.
        gamma: As in `EMAConfig`, > 0.
        power: As in `EMAConfig`, > 0.
        rise_steps: As in `EMAConfig`, > 0.

    Raises:
        ValueError: For a value out of its range.
    """

    average_decay: Any = 0.99
    start_step: int = 0
    dynamic_decay: Growth = True
    time_constant: float = 2000.0
    gamma: float = 1.0
    power: float = 2 / 3
    rise_steps: int | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "AverageDecay":
        """Returns that of a config's `average_arguments()`, which has more than the decay."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: arguments[name] for name in names if name in arguments})

    def __post_init__(self) -> None:
        if not (callable(self.average_decay) or 0 <= self.average_decay < 1):
            self._out_of_range("average_decay", "in [0, 1)")
        if self.start_step < 0:
            self._out_of_range("start_step", ">= 0")
        if self.dynamic_decay not in (True, False, "power", "exponential", "cosine"):
            self._out_of_range("dynamic_decay", "True, False, 'power', 'exponential' or 'cosine'")
        for name in ("time_constant", "gamma", "power"):
            if not getattr(self, name) > 0:
                self._out_of_range(name, "> 0")
        if self.dynamic_decay == "cosine" and not (self.rise_steps or 0) > 0:
            self._out_of_range("rise_steps", "> 0 with `dynamic_decay: cosine`")

    def _out_of_range(self, name: str, expected: str) -> None:
        value = getattr(self, name)
        raise ValueError(f"Argument `{name}` must be {expected}, received: {name}={value}")

    def moved_share(self, n: Array, m: Array, xp: Namespace) -> Array:
        """Returns 1 - d, the share of the way to the weights that update n takes the average.

        Args:
            n: The number of the update, from 1.
            m: n - `start_step`, apart, since that is exact where n in float32 is not.
            xp: Functions of arrays.
        """
        decay = self.average_decay
        share = 1 - (decay(n - 1) if callable(decay) else decay)
        done = xp.maximum(m, 0.0)
        if self.dynamic_decay is True:
            share = xp.maximum(share, 9 / (10 + done))
        elif self.dynamic_decay == "power":
            share = xp.maximum(share, xp.power(1 + done / self.gamma, -self.power))
        elif self.dynamic_decay == "exponential":
            share = share + (1 - share) * xp.exp(-done / self.time_constant)
        elif self.dynamic_decay == "cosine":
            steps = self.rise_steps or 1
            share = share * half_cosine(xp.maximum(steps - (n - 1), 0.0) / steps, xp)
        return xp.where(m < 0, 1.0, share)
