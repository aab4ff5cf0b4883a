"""The optimizers of PyTorch that are made of rules, by the names of their classes."""

from typing import Any

import optimization.configs.optimizer_config  # registers the types
import optimization.torch
from optimization import extras
from optimization.rules.rule import native_name, origins
from optimization.torch.derived import native_class


def __getattr__(name: str) -> Any:
    rules = {native_name(rule): rule for rule in origins()}
    if name in rules:
        return native_class(rules[name])
    raise extras.no_attribute("optimization.torch", name, [*rules, *optimization.torch.__all__])
