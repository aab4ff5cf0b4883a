"""What users call has an example in its docstring, which runs as it says."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import keras
import numpy as np
import pytest

import optimization
import optimization.keras
from optimization import LR_CLS, OPTIMIZERS_CLS, OptimizationConfig, optimizers

MODULES = [
    "optimization.optimizer_factory",
    "optimization.configs.registry",
    "optimization.rules.base",
    *(m.name for m in pkgutil.walk_packages(optimization.keras.__path__, "optimization.keras.")),
]
NAMES = {
    **{"keras": keras, "np": np, "optimization": optimization, "LR_CLS": LR_CLS},
    **{"OPTIMIZERS_CLS": OPTIMIZERS_CLS, "OptimizationConfig": OptimizationConfig},
    "curve": optimization.schedules.curve,
    "PipelineOptimizer": optimizers.PipelineOptimizer,
}


def public():
    """Yields what users call, by name."""
    stub = pathlib.Path(optimization.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    for name in re.findall(r" import (\w+)", stub):
        yield name, getattr(optimization, name)
    for name in optimizers.__all__:
        yield name, getattr(optimizers, name)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name, monkeypatch):
    monkeypatch.setattr(LR_CLS, "_entries", dict(LR_CLS._entries))
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(module, extraglobs=NAMES, optionflags=options).failed == 0


def test_what_users_call_has_an_example():
    missing = [
        name
        for name, value in public()
        if inspect.isclass(value) or inspect.isroutine(value)
        if ">>>" not in value.__doc__
    ]
    assert missing == []
