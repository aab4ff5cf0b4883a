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


def estimated_step_sizes(optimizer: Any) -> dict[str, float]:
    """Returns the step sizes that optimizers estimate by themselves, as Prodigy does its d.

    >>> optimizer = optimization.optimizers.Prodigy(1.0)
    >>> optimizer.build([keras.Variable([3.0, 3.0], name="weight")])
    >>> [f"{d:.0e}" for d in estimated_step_sizes(optimizer).values()]
    ['1e-06']

    Args:
        optimizer: One of this package; it may be inside of a `LossScaleOptimizer`.

    Returns:
        Estimates by the name of the group whose optimizer has it, "default" for that of all; empty
        where no optimizer estimates, and before one is built.
    """
    inner = innermost(optimizer)
    members = getattr(inner, "updating_optimizers", None)
    owners = {DEFAULT: inner} if members is None else members()
    found = {n: getattr(owner, "estimated_step_size", None) for n, owner in owners.items()}
    return {name: number(value) for name, value in found.items() if value is not None}


def estimates(optimizer: Any) -> dict[str, float]:
    """Returns these under the names by which they are reported."""
    found, key = estimated_step_sizes(optimizer), "estimated_step_size"
    return {key if name == DEFAULT else f"{key}/{name}": d for name, d in found.items()}


def number(value: Any) -> float:
    """Returns a scalar of any backend as a number."""
    # A variable with copies on several devices is no number by itself.
    return float(value.numpy() if hasattr(value, "numpy") else ops.convert_to_numpy(value))
