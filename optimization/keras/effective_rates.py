"""The steps that Adafactor takes relative to the weights, to be looked at."""

import typing
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from keras import ops

from optimization.keras.gradients import compute_dtype
from optimization.keras.paths import path_of
from optimization.keras.pipeline import PipelineOptimizer
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.keras.rule_part import FUNCTIONS
from optimization.keras.stages.update import Update
from optimization.rules.adafactor_formula import AdafactorFormula
from optimization.rules.arrays import State
from optimization.rules.rule import Numbers


def effective_learning_rates(optimizer: Any) -> dict[str, float]:
    """Returns Adafactor's effective learning rate of each variable that it updates.

    That is alpha = rho * max(epsilon2, RMS(w)) of the update to come, rho without the parameter
    scale, with all multipliers of groups and layers. `AdafactorSchedule` of transformers shows
    that of one variable of each group, as of the update before.

    >>> optimizer = optimization.optimizers.Adafactor(0.5)
    >>> optimizer.build([keras.Variable([3.0, 3.0], name="weight")])
    >>> effective_learning_rates(optimizer)
    {'weight': 1.5}

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
    updated: Iterable[tuple[str, Any, Any]]
    updated, values = ((path_of(v), optimizer, v) for v in optimizer._trainable_variables), {}
    if isinstance(optimizer, PipelineOptimizer):
        updated, values = optimizer.stage(Update).updaters(), optimizer.scheduled_values()
    rates = {
        path: ops.cast(_effective_rate(owner, variable, values), "float32")
        for path, owner, variable in updated
        if isinstance(getattr(owner, "rule", None), AdafactorFormula)
        and not owner._overwrite_variable_with_gradient(variable)
    }
    if not rates:
        return {}
    # Brought from the device in one go.
    found = np.asarray(ops.convert_to_numpy(ops.stack(list(rates.values()))))
    return dict(zip(rates, found.tolist(), strict=True))


def relative_to_weights(optimizer: Any) -> bool:
    """Says whether an Adafactor with parameter scale is among what updates variables."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    inner = [optimizer]
    if isinstance(optimizer, PipelineOptimizer):
        members = optimizer.stage(Update).members.members
        inner = [member.part or member.optimizer for member in members if member.positions]
    rules = [getattr(each, "rule", None) for each in inner]
    return any(isinstance(r, AdafactorFormula) and r.is_relative_to_weights for r in rules)


def _effective_rate(optimizer: RuleOptimizer, variable: Any, values: Mapping[str, Any]) -> Any:
    """Returns alpha of the update to come of a variable, with the values of schedules."""
    part = optimizer.part_of(variable)
    rule = typing.cast(AdafactorFormula, part.rule)
    h = part.numbers_of(variable, part.counted(part.learning_rate, values))
    kept = part.state_of(variable).items()
    state = State({name: ops.convert_to_tensor(slot) for name, slot in kept})
    w = ops.cast(variable, compute_dtype(variable))
    return rule.rates(w, state, Numbers(w=FUNCTIONS.norm(w)), h, FUNCTIONS)[1]
