"""What is said where an optional package is not installed."""

import importlib
import re
import subprocess
import sys

import pytest

from optimization import extras
from optimization.extras import MissingExtraError

CONFIG = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # as if it were not installed
import optimization
config = optimization.OptimizationConfig({{
    "optimizer": {{"type": "sgd"}},
    "learning_rate": {{"type": "constant", "constant": {{"learning_rate": 0.1}}}},
}})
factory = optimization.OptimizerFactory(config)
print(factory.learning_rate_curve([0, 5]).tolist())
"""


def last_line(code, *missing):
    code = CONFIG.format(missing=missing) + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[0.1, 0.1]\n"
    return done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    "code",
    [
        "factory.build_learning_rate()",
        "factory.build_optimizer(0.1)",
        "optimization.OPTIMIZERS_CLS['sgd']",
        "optimization.OPTIMIZERS_CLS['lamb']",
        "optimization.EvaluateAverages",
        "import optimization.optimizers",
        "import optimization.schedules.keras_schedules",
        "from optimization.transformers import AdamWeightDecay",
    ],
)
def test_without_keras_the_extra_is_named(code):
    assert last_line(code, "keras", "tensorflow") == (
        "optimization.extras.MissingExtraError: Keras is not installed, and this needs it. The "
        "extra `tensorflow` brings it: `pip install -e '.[tensorflow]'` in a clone of "
        "optimizer-factory"
    )


def test_without_the_backend_of_keras_its_extra_is_named(monkeypatch):
    pytest.importorskip("keras")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    line = last_line("factory.build_learning_rate()", "tensorflow")
    assert "TensorFlow is not installed, and this needs it. The extra `tensorflow`" in line


@pytest.mark.parametrize("code", ["import optimization.torch", "from optimization import torch"])
def test_without_torch_the_extra_is_named(code):
    assert "PyTorch is not installed, and this needs it. The extra `torch`" in last_line(
        code, "torch"
    )


@pytest.mark.parametrize(("missing", "title"), [("jax", "JAX"), ("optax", "optax")])
@pytest.mark.parametrize("code", ["import optimization.jax", "from optimization import jax"])
def test_without_jax_or_optax_the_extra_is_named(code, missing, title):
    if missing == "optax":
        pytest.importorskip("jax")  # of two that are missing the first is named
    said = f"{title} is not installed, and this needs it. The extra `jax` brings it"
    assert said in last_line(code, missing)


def test_require_returns_the_package():
    assert extras.require("json").loads("1") == 1


@pytest.mark.parametrize(
    ("module", "name", "nearest"),
    [
        ("optimization", "OptimizerFactry", "OptimizerFactory"),
        ("optimization.training", "Traner", "Trainer"),
        ("optimization.optimizers", "LAM", "LAMB"),
    ],
)
def test_a_wrong_name_says_the_nearest(module, name, nearest):
    if module == "optimization.optimizers":
        pytest.importorskip("keras")
    message = f"'{module}' has no attribute '{name}'; did you mean '{nearest}'?"
    with pytest.raises(AttributeError, match=re.escape(message)):
        getattr(importlib.import_module(module), name)


def test_other_missing_modules_keep_their_own_error(monkeypatch):
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as error:
        extras.require("no_such_module")
    assert not isinstance(error.value, MissingExtraError)


def test_what_is_installed_and_broken_keeps_its_own_error():
    error = ModuleNotFoundError("No module named 'yaml.inside'", name="yaml.inside")
    assert extras.explained(error) is error
