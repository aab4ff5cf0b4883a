"""The numbers of an optimizer that change as it trains, by the names under which they are reported.

For the factory's optimizers and others of Keras, also wrapped in a `LossScaleOptimizer`.
"""

from typing import Any

from keras import ops

from optimization.matching.rules import DEFAULT


def innermost(optimizer: Any) -> Any:
    """Returns the optimizer that a `LossScaleOptimizer` wraps, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def learning_rates(optimizer: Any) -> dict[str, float]:
    """Returns the learning rate, and where there are several groups that of each."""
    of_groups: dict[str, Any] = getattr(innermost(optimizer), "learning_rates", dict)()
    if list(of_groups) == [DEFAULT]:  # A schedule is not asked twice: it takes its time.
        return {"learning_rate": number(of_groups[DEFAULT])}
    values = {"learning_rate": number(optimizer.learning_rate)}
    if len(of_groups) > 1:
        values |= {f"learning_rate/{name}": number(rate) for name, rate in of_groups.items()}
    return values


def scheduled_values(optimizer: Any) -> dict[str, float]:
    """Returns what the hyperparameters that follow a schedule are at the next update."""
    found: dict[str, Any] = getattr(innermost(optimizer), "scheduled_values", dict)()
    return {name: number(value) for name, value in found.items()}


def number(value: Any) -> float:
    """Returns a scalar of any backend as a number."""
    # A variable with copies on several devices is no number by itself.
    return float(value.numpy() if hasattr(value, "numpy") else ops.convert_to_numpy(value))
