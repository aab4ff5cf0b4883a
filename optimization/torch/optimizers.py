"""The optimizers of PyTorch that are made of rules, by the names of their classes."""

from typing import Any

import optimization.configs.optimizer_config  # noqa: F401  registers the types
from optimization.rules.rule import native_name, origins
from optimization.torch.derived import native_class


def __getattr__(name: str) -> Any:
    for rule in origins():
        if native_name(rule) == name:
            return native_class(rule)
    raise AttributeError(f"{__name__} has no attribute {name!r}")
