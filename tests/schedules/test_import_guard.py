import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "keras", "torch", "jax")


def _run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_schedules_need_no_framework():
    code = f"""
import sys
from optimization.schedules import LR_CLS, WARMUP_CLS, LrConfig, WarmupConfig, curve

@LR_CLS.register("mine")
def mine(step, *, rate: float = 0.5, xp):
    return xp.full_like(step, rate)

warmup = WarmupConfig({{"type": "cosine", "cosine": {{"warmup_steps": 10}}}})
for name in ("mine", "cosine"):
    lr = LrConfig({{"type": name}})
    if name == "cosine":
        lr.cosine = {{"initial_learning_rate": 0.1, "decay_steps": 100}}
    assert (curve(lr.get(), warmup.get(), range(100)) >= 0).all()
print(*LR_CLS, *WARMUP_CLS)
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    out = _run(code)
    assert {"cosine", "mine", "linear"} <= set(out)
    assert not set(HEAVY) & set(out)


@pytest.mark.slow
def test_the_adapter_registers_what_was_there_before_it():
    # In the order in which a user's program goes: own types first, a saved schedule after.
    code = """
from optimization.schedules import LR_CLS

@LR_CLS.register("mine")
def mine(step, *, rate: float = 0.5, xp):
    return xp.full_like(step, rate)

import keras
import optimization.schedules.keras_schedules

config = {"module": "optimization.schedules.keras_schedules", "class_name": "MineLearningRate",
          "config": {"rate": 0.25}, "registered_name": "optimization>LearningRate.mine"}
scaled = {"module": "optimization.schedules.scaled",
          "class_name": "ScaledLearningRate", "config": {"learning_rate": config, "decay": 0.5},
          "registered_name": "optimization>ScaledLearningRate"}
schedule = keras.optimizers.schedules.deserialize(scaled)
print(float(keras.ops.convert_to_numpy(schedule(2))))
"""
    assert _run(code)[-1] == "0.125"
