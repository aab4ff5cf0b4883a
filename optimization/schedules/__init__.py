"""Learning rate schedules and warmups: configs that hold their formulas, and the NumPy curve.

Nothing here imports Keras; `optimization.schedules.keras_schedules` does.
"""

import importlib
import pkgutil

from optimization.schedules.base import BaseLrConfig, BaseWarmupConfig
from optimization.schedules.compose import check_schedule, curve, schedule_problems
from optimization.schedules.registry import LR_CLS, WARMUP_CLS, LrConfig, WarmupConfig

__all__ = [
    "LR_CLS",
    "WARMUP_CLS",
    "BaseLrConfig",
    "BaseWarmupConfig",
    "LrConfig",
    "WarmupConfig",
    "check_schedule",
    "curve",
    "schedule_problems",
]

# Importing this registers every type: those of all files of this package that need no Keras.
for _module in pkgutil.iter_modules(__path__):
    if _module.name not in ("exact", "keras_schedules", "scaled"):
        importlib.import_module(f"{__name__}.{_module.name}")
