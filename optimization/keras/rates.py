"""Learning rates of groups."""

from typing import Any

from keras import ops


def rate_now(optimizer: Any, rate: Any, multiplier: float) -> Any:
    """Returns a learning rate as it is now.

    Args:
        optimizer: Counts the updates.
        rate: A variable, or a schedule of the updates; None for the rate of the optimizer.
        multiplier: A factor.
    """
    if rate is None:
        now = optimizer.learning_rate
    else:
        now = ops.convert_to_tensor(rate(optimizer.iterations) if callable(rate) else rate)
    return now if multiplier == 1 else now * multiplier
