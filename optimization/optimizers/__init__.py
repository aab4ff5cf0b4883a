"""Optimizers for Keras 3; importing this package makes them, and the schedules, known to Keras."""

from typing import Any

from optimization import extras

extras.require("keras")

import optimization.keras.registration
import optimization.schedules.keras_schedules  # noqa: F401
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.keras.callbacks import EvaluateAverages
from optimization.keras.effective_rates import effective_learning_rates
from optimization.keras.group_table import GroupRow, format_group_table
from optimization.keras.groups import ParamGroup
from optimization.keras.pipeline import PipelineOptimizer
from optimization.keras.stages.finite_check import NonFiniteGradientError
from optimization.rules.rule import Rule

Adafactor = OPTIMIZERS_CLS["adafactor"]
AdafactorKeras = OPTIMIZERS_CLS["adafactor_keras"]
LAMB = OPTIMIZERS_CLS["lamb"]
LARS = OPTIMIZERS_CLS["lars"]
Adagrad = OPTIMIZERS_CLS["adagrad"]
Adam = OPTIMIZERS_CLS["adam"]
AdamWeightDecay = OPTIMIZERS_CLS["adamw"]
Adamax = OPTIMIZERS_CLS["adamax"]
Muon = OPTIMIZERS_CLS["muon"]
Nadam = OPTIMIZERS_CLS["nadam"]
RMSprop = OPTIMIZERS_CLS["rmsprop"]
ScheduleFreeAdamW = OPTIMIZERS_CLS["schedule_free_adamw"]
ScheduleFreeSGD = OPTIMIZERS_CLS["schedule_free_sgd"]
SGDTorch = OPTIMIZERS_CLS["sgd_torch"]


def __getattr__(name: str) -> Any:
    """Returns the class of a rule that was registered, by its name."""
    for kind, entry in OPTIMIZERS_CLS.entries():
        if issubclass(entry.config_class, Rule) and entry.config_class.origin().class_name == name:
            return OPTIMIZERS_CLS[kind]
    raise AttributeError(f"{__name__} has no attribute {name!r}")


__all__ = [
    "LAMB",
    "LARS",
    "Adafactor",
    "AdafactorKeras",
    "Adagrad",
    "Adam",
    "AdamWeightDecay",
    "Adamax",
    "EvaluateAverages",
    "GroupRow",
    "Muon",
    "Nadam",
    "NonFiniteGradientError",
    "ParamGroup",
    "PipelineOptimizer",
    "RMSprop",
    "SGDTorch",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "effective_learning_rates",
    "format_group_table",
]
