"""What code of a training calls has an example in its docstring, which runs as it says."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from rich.console import Console

import optimization
from optimization import training
from optimization.training import registries
from tests.training import tiny

MODULES = [m.name for m in pkgutil.iter_modules(training.__path__, "optimization.training.")]
# A command line, and errors.
WITHOUT = {"main", *(name for name in training.__all__ if name.endswith("Error"))}
NAMES = {
    **{name: getattr(optimization, name) for name in ("DataConfig", "RuntimeConfig", "TaskConfig")},
    **{name: getattr(training, name) for name in ("Task", "get_experiment")},
    **{"TinyTask": tiny.TinyTask, "dataclasses": dataclasses, "np": np},
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name, tmp_path, monkeypatch):
    for registry in ("_EXPERIMENTS", "_TASKS"):
        monkeypatch.setattr(registries, registry, dict(getattr(registries, registry)))
    monkeypatch.delitem(registries._EXPERIMENTS, "digits", raising=False)
    names = {**NAMES, "model_dir": tmp_path, "quiet": Console(quiet=True)}
    assert doctest.testmod(importlib.import_module(name), extraglobs=names).failed == 0


@pytest.mark.parametrize("name", sorted({*training.__all__} - WITHOUT))
def test_what_users_call_has_an_example(name):
    value = getattr(training, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert ">>>" in value.__doc__
