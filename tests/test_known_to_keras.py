"""Each case in a fresh process: what is imported, and in which order, is the point."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import optimization
from optimization.optimizers import LAMB

pytestmark = pytest.mark.slow

CONFIG = {
    "optimizer": {"type": "lamb", "lamb": {}},
    "learning_rate": {
        "type": "cosine",
        "cosine": {"initial_learning_rate": 0.1, "decay_steps": 100},
    },
    "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
    "ema": {},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Models whose outermost object of this package is an optimizer, another one, a schedule."""
    folder = tmp_path_factory.mktemp("saved")
    factory = optimization.OptimizerFactory(optimization.OptimizationConfig(CONFIG))
    rate = factory.build_learning_rate()
    optimizers = {
        "factory": factory.build_optimizer(rate),
        "own": LAMB(0.1),
        "schedule": keras.optimizers.Adam(rate),
    }
    for name, optimizer in optimizers.items():
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile(optimizer, loss="mse")
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
        model.save(folder / f"{name}.keras")
    return folder


def in_a_fresh_process(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("imports", "name", "expected"),
    [
        ("import optimization, keras", "factory", "PipelineOptimizer"),
        ("import keras, optimization", "factory", "PipelineOptimizer"),
        slow(
            "import optimization.schedules.keras_schedules, keras", "factory", "PipelineOptimizer"
        ),
        slow("import optimization; from keras import models; import keras", "own", "LAMB"),
        slow("import optimization, keras", "schedule", "Adam"),
    ],
)
def test_the_package_is_all_that_is_imported(saved, imports, name, expected):
    code = f"""
{imports}
import sys
assert "optimization.optimizers" not in sys.modules
model = keras.models.load_model({str(saved / name)!r} + ".keras")
assert int(model.optimizer.iterations) == 1
print(type(model.optimizer).__name__)
"""
    assert in_a_fresh_process(code) == expected


@pytest.mark.slow
def test_every_class_is_told():
    code = """
import optimization, keras
told = set(keras.saving.get_custom_objects())
import optimization.optimizers, optimization.training.loss_scale, optimization.schedules.scaled
import optimization.transformers.warmup, optimization.transformers.adam_weight_decay
known = keras.saving.get_custom_objects()
print(sorted(set(known) - told), [n for n, c in known.items() if not isinstance(c, type)])
"""
    assert in_a_fresh_process(code) == "[] []"


def test_looking_for_keras_imports_nothing():
    code = """
import importlib.util, sys
import optimization
assert importlib.util.find_spec("keras") is not None
print(sorted({"keras", "optimization.configs", "optimization.optimizers"} & set(sys.modules)))
"""
    assert in_a_fresh_process(code) == "[]"
