"""What code for transformers calls has an example in its docstring, which runs as it says."""

import doctest
import importlib
import inspect
import pkgutil

import keras
import pytest

import optimization.transformers as ours

torch = pytest.importorskip("torch")
PREFIX = "optimization.transformers."
MODULES = [
    "optimization.schedules.followers",
    *(module.name for module in pkgutil.iter_modules(ours.__path__, PREFIX)),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    if name.endswith("accumulator"):
        pytest.importorskip("tensorflow")
        if keras.backend.backend() != "tensorflow":
            pytest.skip("it is of TensorFlow")
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5)
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"torch": torch, "sgd": sgd}).failed == 0


@pytest.mark.parametrize("name", ours.__all__)
def test_what_users_call_has_an_example(name):
    value = getattr(ours, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert ">>>" in value.__doc__
