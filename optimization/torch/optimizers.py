"""The optimizers of PyTorch that are made of rules, by the names of their classes."""

from typing import Any

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.rules.rule import Rule
from optimization.torch.derived import native_class


def __getattr__(name: str) -> Any:
    for _, entry in OPTIMIZERS_CLS.entries():
        if issubclass(entry.config_class, Rule) and entry.config_class.native_name != "":
            made = native_class(entry.config_class)
            if made.__name__ == name:
                return made
    raise AttributeError(f"{__name__} has no attribute {name!r}")
