"""The steps that Adafactor takes relative to the weights, to be looked at."""

from typing import Any

import numpy as np
from keras import ops

from optimization.keras.pipeline import PipelineOptimizer
from optimization.keras.stages.update import Update
from optimization.optimizers.adafactor import Adafactor
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
        return _rates([(path_of(v), optimizer, v) for v in optimizer._trainable_variables])
    with optimizer.stage(Update).updaters() as found:
        return _rates(found)


def relative_to_weights(optimizer: Any) -> bool:
    """Says whether an Adafactor with parameter scale is among what updates variables."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    inner = [optimizer]
    if isinstance(optimizer, PipelineOptimizer):
        members = optimizer.stage(Update).members.members
        inner = [member.optimizer for member in members if member.positions]
    return any(isinstance(o, Adafactor) and o.multiply_by_parameter_scale for o in inner)


def _rates(updated: list[tuple[str, Any, Any]]) -> dict[str, float]:
    rates = {
        path: ops.cast(optimizer.effective_rate(variable), "float32")
        for path, optimizer, variable in updated
        if isinstance(optimizer, Adafactor)
        and not optimizer._overwrite_variable_with_gradient(variable)
    }
    if not rates:
        return {}
    # Brought from the device in one go.
    values = np.asarray(ops.convert_to_numpy(ops.stack(list(rates.values()))))
    return dict(zip(rates, values.tolist(), strict=True))
