"""Optimizers for Keras 3; importing this package makes them, and the schedules, known to Keras."""

from optimization import extras

extras.require("keras")

import optimization.optimizers.registration
import optimization.schedules.keras_schedules  # noqa: F401
from optimization.keras.pipeline import PipelineOptimizer
from optimization.keras.stages.finite_check import NonFiniteGradientError
from optimization.optimizers.adafactor import Adafactor, AdafactorKeras
from optimization.optimizers.adagrad import Adagrad
from optimization.optimizers.adam import Adam
from optimization.optimizers.adam_weight_decay import AdamWeightDecay
from optimization.optimizers.adamax import Adamax
from optimization.optimizers.callbacks import EvaluateAverages
from optimization.optimizers.effective_rates import effective_learning_rates
from optimization.optimizers.group_table import GroupRow, format_group_table
from optimization.optimizers.groups import ParamGroup
from optimization.optimizers.lamb import LAMB
from optimization.optimizers.lars import LARS
from optimization.optimizers.muon import Muon
from optimization.optimizers.nadam import Nadam
from optimization.optimizers.rmsprop import RMSprop
from optimization.optimizers.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from optimization.optimizers.sgd_torch import SGDTorch

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
