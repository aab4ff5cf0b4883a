import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.keras.common import tensorflow_only

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report():
    # Logical devices must be made before TensorFlow starts: in a process of its own.
    done = subprocess.run(
        [sys.executable, "-m", "tests.keras.two_replicas"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@tensorflow_only
@pytest.mark.slow
def test_two_replicas_equal_one(report):
    errors = report["errors"]
    assert len(errors) >= report["cases"] + 6
    # The gradient is summed in two halves: five float32 steps differ by roundings.
    assert {way: error for way, error in errors.items() if not error < 1e-6} == {}


@tensorflow_only
@pytest.mark.slow
def test_two_replicas_of_bfloat16_weights(report):
    # Gradients are rounded to 8 bits before and after they are summed; Adam's steps are of 0.01.
    assert max(report["low precision"]) < 0.01


@tensorflow_only
@pytest.mark.slow
def test_the_aggregator_is_called_once_for_each_replica_and_step(report):
    assert report["aggregator_calls"] == 2 * report["steps"]


@tensorflow_only
@pytest.mark.slow
def test_wrong_uses_of_a_strategy_are_errors(report):
    refusals = report["refusals"]
    assert "inside the same `strategy.scope()`" in refusals["made outside"]
    assert '`jit_compile` must be "auto" or False' in refusals["jit"]
    assert "outside `strategy.scope()`" in refusals["in scope"]


@tensorflow_only
@pytest.mark.slow
def test_two_swaps_restore_every_copy(report):
    # Kernel, bias, gamma, beta and two statistics, their averages, the flag; on two devices.
    assert report["swaps"] == {"not restored": 0, "changed": 2 * (6 + 6 + 1)}
