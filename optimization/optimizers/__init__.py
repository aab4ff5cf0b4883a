"""Optimizers for Keras 3; importing this package makes them, and the schedules, known to Keras."""

from typing import TYPE_CHECKING, Any

from optimization import extras

extras.require("keras")

import keras

import optimization.schedules.keras_schedules  # noqa: F401
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.configs.registry import Entry
from optimization.keras.callbacks import EvaluateAverages, LearningRateLogger
from optimization.keras.effective_rates import effective_learning_rates
from optimization.keras.finding import find_learning_rate
from optimization.keras.group_table import GroupRow, format_group_table
from optimization.keras.groups import ParamGroup
from optimization.keras.pipeline import PipelineOptimizer
from optimization.keras.reported import estimated_step_sizes
from optimization.keras.rule_optimizer import keras_class
from optimization.keras.stages.finite_check import NonFiniteGradientError
from optimization.rules.rule import origins

if TYPE_CHECKING:
    from optimization.keras.optimizers import *  # noqa: F403  a stub of those that rules make

__all__ = [
    "EvaluateAverages",
    "GroupRow",
    "LearningRateLogger",
    "NonFiniteGradientError",
    "ParamGroup",
    "PipelineOptimizer",
    "effective_learning_rates",
    "estimated_step_sizes",
    "find_learning_rate",
    "format_group_table",
    *(rule.class_name for rule in origins()),
]


def __getattr__(name: str) -> Any:
    """Returns the class that is made of a rule: `Adam`, for example, or that of a user's rule."""
    for rule in origins():
        if rule.class_name == name:
            return keras_class(rule)
    raise extras.no_attribute(__name__, name, __all__)


def _make_known(name: str, entry: Entry) -> None:
    """Makes an optimizer known to Keras, so that models saved with it load."""
    cls = entry.target
    if cls is entry.config_class:  # a rule, of which the class is made, and made known
        OPTIMIZERS_CLS[name]
        return
    if not isinstance(cls, type) or cls.__module__.startswith("keras."):
        return
    if keras.saving.get_registered_name(cls) == cls.__name__:  # not known to Keras yet
        keras.saving.register_keras_serializable("optimization", f"Optimizer.{name}")(cls)


OPTIMIZERS_CLS.subscribe(_make_known)
