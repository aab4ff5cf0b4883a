"""Float32, in which everything trains: what a number becomes there."""

import math
import struct
from typing import Any

from optimization.configs.base import Config
from optimization.configs.errors import Problem, describe


def in_float32(value: float) -> float:
    """Returns `value` as float32 has it: infinite above 3.4e38, 0 below 1e-45."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


class Float32Config(Config):
    """A config whose numbers train: each must be finite in float32 too."""

    def _check_field(self, name: str, value: Any) -> list[Problem]:
        values = value if isinstance(value, tuple) else (value,)
        problems = super()._check_field(name, value)
        for number in values:
            if isinstance(number, float) and not math.isfinite(in_float32(number)):
                message = f"must be finite in float32, below 3.4e38, got {describe(number)}"
                problems.append(Problem("value", self._join(name), message))
        return problems
