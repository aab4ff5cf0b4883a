"""A sketch of a learning rate or a warmup, of block characters, for the terminal."""

from collections.abc import Sequence
from typing import Any

from optimization.cli.catalog import Type
from optimization.configs.documentation import unit_of
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import ConfigError
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import curve_of
from optimization.configs.tree import declared_specs
from optimization.configs.types import REQUIRED

STEPS = 1000
_ROWS = 6
_BLOCKS = " ▁▂▃▄▅▆▇█"

# What fields have in a sketch that have no default, and those that would hide what a type does.
_SHOWN: dict[str, Any] = {
    "boundaries": [250, 500, 750],
    "decay_rate": 0.1,
    "first_decay_steps": "20%",
    "min_lr_rate": 0.1,
    "num_decay_steps": "30%",
    "num_warmup_steps": "10%",
    "stable_steps": "50%",
    "timescale": 100,
    "values": [1.0, 0.6, 0.3, 0.1],
    "warmup_learning_rate": 0.01,
    "warmup_steps": "40%",
}
_IN_PLACE_OF_DEFAULTS = ("min_lr_rate", "num_warmup_steps", "timescale")
_OF_TYPES = {"step_cosine_with_offset": {"boundaries": [100, 400, 700, 900]}}


def sketch_of(kind: Type, width: int) -> str:
    """Returns the curve of a type over 1000 steps, with a line that says of what; "" for none."""
    if kind.section == "optimizer":
        return ""
    section = _settings(kind)
    params: dict[str, Any] = {kind.section: {"type": kind.name, kind.name: section}}
    params.setdefault("learning_rate", {"type": "constant", "constant": {"learning_rate": 1.0}})
    try:
        config, _ = OptimizationConfig(params).sized(TrainingLength(STEPS, STEPS // 10))
        curve = curve_of(config, config)
        if curve is None or not curve.is_computable(STEPS):
            return ""
    except ConfigError:  # a type of one's own whose fields take other values
        return ""
    columns = min(width, 64) - 2
    values = curve.values([column * (STEPS - 1) // (columns - 1) for column in range(columns)])
    given = ", ".join(f"{name} {value}" for name, value in section.items())
    return "\n".join([f"Over {STEPS} steps" + (f", with {given}" if given else ""), *chart(values)])


def chart(values: Sequence[float]) -> list[str]:
    """Returns lines of block characters, each column as high as its value, from 0 to the highest.

    >>> print(*chart([0.0, 0.5, 1.0]), sep="|")
      █|  █|  █| ██| ██| ██
    """
    highest = max(values) or 1.0
    eighths = [round(8 * _ROWS * max(value, 0.0) / highest) for value in values]
    rows = reversed(range(_ROWS))
    lines = ["".join(_BLOCKS[min(max(e - 8 * row, 0), 8)] for e in eighths) for row in rows]
    return [line.rstrip() for line in lines]


def _settings(kind: Type) -> dict[str, Any]:
    """Returns values for the fields that need one."""
    settings = {}
    for name, spec in declared_specs(kind.config_class).items():
        if spec.default() is REQUIRED:
            steps = unit_of(spec.annotation) == "optimizer steps"
            settings[name] = _SHOWN.get(name, "25%" if steps else 1.0)
        elif name in _IN_PLACE_OF_DEFAULTS:
            settings[name] = _SHOWN[name]
    return settings | _OF_TYPES.get(kind.name, {})
