"""Optimizers for Keras 3; importing this package makes them, and the schedules, known to Keras."""

import optimization.schedules.keras_schedules  # noqa: F401
from optimization.optimizers.adafactor import Adafactor
from optimization.optimizers.adafactor_keras import AdafactorKeras
from optimization.optimizers.adam_weight_decay import AdamWeightDecay
from optimization.optimizers.lamb import LAMB
from optimization.optimizers.lars import LARS
from optimization.optimizers.optimizer import PipelineOptimizer
from optimization.optimizers.sgd_torch import SGDTorch

__all__ = [
    "LAMB",
    "LARS",
    "Adafactor",
    "AdafactorKeras",
    "AdamWeightDecay",
    "PipelineOptimizer",
    "SGDTorch",
]
