"""The optimizers of Keras that are made of rules, by the names of their classes."""

from typing import Any

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.keras.derived import keras_class
from optimization.rules.rule import Rule


def __getattr__(name: str) -> Any:
    for _, entry in OPTIMIZERS_CLS.entries():
        rule = entry.config_class
        if issubclass(rule, Rule) and rule.origin().class_name == name:
            return keras_class(rule)
    raise AttributeError(f"{__name__} has no attribute {name!r}")
