"""The optimizers of Keras that are made of rules, by the names of their classes."""

from typing import Any

import optimization.configs.optimizer_config  # noqa: F401  registers the types
from optimization.keras.derived import keras_class
from optimization.rules.rule import origins


def __getattr__(name: str) -> Any:
    for rule in origins():
        if rule.class_name == name:
            return keras_class(rule)
    raise AttributeError(f"{__name__} has no attribute {name!r}")
