"""Learning rate schedules and warmups: configs that hold their formulas, and the NumPy curve.

Nothing here imports Keras; `optimization.schedules.keras_schedules` does.
"""

from optimization.schedules import (  # noqa: F401  importing them registers their types
    constant,
    cosine,
    exponential,
    metric,
    phases,
    polynomial,
    power,
    relative_step,
    transformers,
    transformers_wsd,
    warmups,
)
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
