"""Learning rates that follow another one."""

from collections.abc import Callable
from typing import Any

from keras import ops


class ScaledRate:
    """A learning rate that is a multiple of another, as a function of nothing, for Keras.

    Args:
        source: Returns the other rate as it is now.
        multiplier: The factor.
        constant: Whether the other rate is a constant, not a schedule.
    """

    def __init__(self, source: Callable[[], Any], multiplier: float, constant: bool):
        self.source = source
        self.multiplier = multiplier
        self.constant = constant

    def __call__(self) -> Any:
        """Returns the rate now."""
        rate = ops.convert_to_tensor(self.source())
        return rate if self.multiplier == 1 else rate * self.multiplier


def is_schedule(learning_rate: Any) -> bool:
    """Says whether what an optimizer has as its rate depends on the step."""
    if isinstance(learning_rate, ScaledRate):
        return not learning_rate.constant
    return callable(learning_rate)
