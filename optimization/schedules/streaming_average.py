"""The mean of the last values of a metric."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(repr=False)
class StreamingAverage:
    """The mean of the last `window_size` values, as in transformers.

    Args:
        window_size: How many values count.

    Attributes:
        values: These values, the oldest first.
        sum: Their running sum.
    """

    window_size: int
    values: list[float] = dataclasses.field(default_factory=list, init=False)
    sum: float = dataclasses.field(default=0.0, init=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.window_size})"

    def streamavg(self, value: float) -> float:
        """Takes the next value and returns the mean."""
        self.values.append(value)
        self.sum += value
        if len(self.values) > self.window_size:
            self.sum -= self.values.pop(0)
        return self.sum / len(self.values)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as numbers and lists."""
        return {"window_size": self.window_size, "values": list(self.values), "sum": self.sum}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Sets the state to what `state_dict` returned; what is missing stays as it is."""
        self.window_size = state_dict.get("window_size", self.window_size)
        self.values = list(state_dict.get("values", self.values))
        self.sum = state_dict.get("sum", self.sum)
