"""Optimizers and learning rate schedules for Keras 3, built from configuration.

    import optimization

    config = optimization.OptimizationConfig({
        "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
        "learning_rate": {"type": "cosine", "cosine": {
            "initial_learning_rate": 0.1, "decay_steps": 10000}},
        "warmup": {"type": "linear", "linear": {"warmup_steps": 500}},
    })
    factory = optimization.OptimizerFactory(config)
    optimizer = factory.build_optimizer(factory.build_learning_rate())

Importing this package, reading files, validating and computing curves imports neither TensorFlow,
nor Keras, JAX or PyTorch; what needs them imports them when it is called.
"""

import importlib
import typing

from optimization._version import __version__

if typing.TYPE_CHECKING:
    from optimization.configs.base import Config, OneOfConfig
    from optimization.configs.errors import ConfigError, ConfigWarning, Origin, Problem
    from optimization.configs.experiment_config import (
        DataConfig,
        ExperimentConfig,
        RuntimeConfig,
        TaskConfig,
        TrainerConfig,
    )
    from optimization.configs.layers import parse_override, read_layers, resolve
    from optimization.configs.optimization_config import (
        OptimizationConfig,
        load_optimization_config,
    )
    from optimization.configs.optimizer_config import (
        BaseOptimizerConfig,
        EMAConfig,
        OptimizerConfig,
    )
    from optimization.configs.types import REQUIRED
    from optimization.optimizer_factory import (
        LR_CLS,
        OPTIMIZERS_CLS,
        WARMUP_CLS,
        OptimizerFactory,
    )
    from optimization.schedules import LrConfig, WarmupConfig

_MODULES = {
    "optimization.configs.base": ("Config", "OneOfConfig"),
    "optimization.configs.errors": ("ConfigError", "ConfigWarning", "Origin", "Problem"),
    "optimization.configs.experiment_config": (
        "DataConfig",
        "ExperimentConfig",
        "RuntimeConfig",
        "TaskConfig",
        "TrainerConfig",
    ),
    "optimization.configs.layers": ("parse_override", "read_layers", "resolve"),
    "optimization.configs.optimization_config": (
        "OptimizationConfig",
        "load_optimization_config",
    ),
    "optimization.configs.optimizer_config": (
        "BaseOptimizerConfig",
        "EMAConfig",
        "OptimizerConfig",
    ),
    "optimization.configs.types": ("REQUIRED",),
    "optimization.optimizer_factory": (
        "LR_CLS",
        "OPTIMIZERS_CLS",
        "WARMUP_CLS",
        "OptimizerFactory",
    ),
    "optimization.schedules": ("LrConfig", "WarmupConfig"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "__version__",
    "register_learning_rate",
    "register_optimizer",
    "register_warmup",
    *_HOMES,
]


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'optimization' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _register(registry: str, name: str, target: typing.Any) -> typing.Callable:
    return __getattr__(registry).register(name, target)


def register_optimizer(name: str, target: typing.Any = None) -> typing.Callable:
    """Returns a decorator that registers an optimizer type; see `Registry.register`."""
    return _register("OPTIMIZERS_CLS", name, target)


def register_learning_rate(name: str, target: typing.Any = None) -> typing.Callable:
    """Returns a decorator that registers a learning rate type; see `Registry.register`."""
    return _register("LR_CLS", name, target)


def register_warmup(name: str, target: typing.Any = None) -> typing.Callable:
    """Returns a decorator that registers a warmup type; see `Registry.register`."""
    return _register("WARMUP_CLS", name, target)
