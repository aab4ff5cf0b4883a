"""Model Garden's learning rates, through the oneofs, as curve and as Keras schedule."""

import json
from pathlib import Path

import numpy as np
import pytest

from optimization.schedules import LrConfig, WarmupConfig, curve
from optimization.schedules.keras_schedules import build_schedule, sample

CASES = json.loads((Path(__file__).parents[1] / "golden" / "garden_lr.json").read_text())["cases"]


def _configs(case):
    lr, warmup = LrConfig(), WarmupConfig()
    for layer in (case["base"], case["optimizer_config"]):
        lr.override(layer.get("learning_rate", {}))
        warmup.override(layer.get("warmup", {}))
    return lr, warmup


# The tolerance with which the figures were published: the ancestor computes in float32.
def _check(values, case):
    np.testing.assert_allclose(values, case["lr"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["source"])
def test_curve(case):
    lr, warmup = _configs(case)
    _check(curve(lr.get(), warmup.get(), case["steps"]), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["source"])
def test_keras_schedule(case):
    lr, warmup = _configs(case)
    _check(sample(build_schedule(lr.get(), warmup.get()), case["steps"]), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["source"])
def test_resolved_values(case):
    for config, section in zip(_configs(case), ("learning_rate", "warmup"), strict=True):
        expected, exported = case["resolved"][section], config.as_dict()
        assert exported["type"] == expected["type"]
        if expected["type"] is not None:
            assert expected[expected["type"]].items() <= exported[expected["type"]].items()


def test_there_are_cases():
    assert len(CASES) == 39
