"""What users of PyTorch call has an example in its docstring, which runs as it says."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

from optimization import OptimizationConfig
from tests.torch.common import torch

import optimization.torch as native  # isort: skip

MODULES = [module.name for module in pkgutil.iter_modules(native.__path__, "optimization.torch.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    module = importlib.import_module(name)
    classes = {name: getattr(native, name) for name in ("Lion", "Prodigy")}
    names = {"torch": torch, "OptimizationConfig": OptimizationConfig, **classes}
    assert doctest.testmod(module, extraglobs=names).failed == 0


@pytest.mark.parametrize("name", native.__all__)
def test_what_users_call_has_an_example(name):
    value = getattr(native, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert ">>>" in value.__doc__
