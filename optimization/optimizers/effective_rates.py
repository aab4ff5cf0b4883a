"""The steps that Adafactor takes relative to the weights, to be looked at."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from optimization.optimizers.adafactor import Adafactor
from optimization.optimizers.optimizer import PipelineOptimizer
from optimization.optimizers.paths import path_of


def effective_learning_rates(optimizer: Any) -> dict[str, float]:
    """Returns Adafactor's effective learning rate of each variable that it updates.

    That is alpha = rho * max(epsilon2, RMS(w)) of the update to come, rho without the parameter
    scale, with all multipliers of groups and layers. `AdafactorSchedule` of transformers shows
    that of one variable of each group, as of the update before.

    Args:
        optimizer: An `Adafactor`, or a `PipelineOptimizer` with one, perhaps among others; either
            may be inside of a `LossScaleOptimizer`.

    Returns:
        Path -> alpha; empty where no variable is updated by an Adafactor.

    Raises:
        ValueError: If the optimizer is not built.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not optimizer.built:
        raise ValueError("The optimizer is not built: its variables are not known yet.")
    if not isinstance(optimizer, PipelineOptimizer):
        pairs = [(path_of(v), (optimizer, v)) for v in optimizer._trainable_variables]
        return _rates(pairs)
    schedules = optimizer._schedules
    with schedules.applied(schedules.values(optimizer.iterations)):
        return _rates(_updated(optimizer))


def relative_to_weights(optimizer: Any) -> bool:
    """Says whether an Adafactor with parameter scale is among what updates variables."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    inner = [optimizer]
    if isinstance(optimizer, PipelineOptimizer):
        inner = [member.optimizer for member in optimizer._members.members if member.positions]
    return any(isinstance(o, Adafactor) and o.multiply_by_parameter_scale for o in inner)


def _updated(pipeline: PipelineOptimizer) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yields the path of each variable, who updates it, and what that one updates in its place."""
    targets = pipeline._masters.of(pipeline._trainable_variables)
    for position, target in enumerate(targets):
        member = pipeline._members.member_at(position)
        if member is not None:
            yield pipeline._paths[position], (member.optimizer, target)


def _rates(updated: Any) -> dict[str, float]:
    rates = {
        path: ops.cast(optimizer.effective_rate(variable), "float32")
        for path, (optimizer, variable) in updated
        if isinstance(optimizer, Adafactor)
        and not optimizer._overwrite_variable_with_gradient(variable)
    }
    if not rates:
        return {}
    # Brought from the device in one go.
    values = np.asarray(ops.convert_to_numpy(ops.stack(list(rates.values()))))
    return dict(zip(rates, values.tolist(), strict=True))
