"""Optimizers for Keras 3; importing this package makes them, and the schedules, known to Keras."""

from typing import Any

from optimization import extras

extras.require("keras")

import optimization.keras.registration
import optimization.schedules.keras_schedules  # noqa: F401
from optimization.keras import optimizers as _made
from optimization.keras.callbacks import EvaluateAverages
from optimization.keras.effective_rates import effective_learning_rates
from optimization.keras.group_table import GroupRow, format_group_table
from optimization.keras.groups import ParamGroup
from optimization.keras.optimizers import (
    LAMB,
    LARS,
    Adafactor,
    AdafactorKeras,
    Adagrad,
    Adam,
    Adamax,
    AdamWeightDecay,
    Muon,
    Nadam,
    RMSprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SGDTorch,
)
from optimization.keras.pipeline import PipelineOptimizer
from optimization.keras.stages.finite_check import NonFiniteGradientError


def __getattr__(name: str) -> Any:
    return getattr(_made, name)  # that of a rule which was registered


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
