"""Schedules that earlier versions have saved load, and have the same values."""

import json

import keras
import numpy as np
import pytest

from optimization import LR_CLS, WARMUP_CLS
from tests.saved_goldens import assert_still_there
from tests.schedules.common import RTOL, keras_values
from tests.schedules.saved import FILE, STEPS, schedules, serialized

CASES = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", CASES)
def test_a_saved_schedule_loads(name):
    stored, values = CASES[name]["schedule"], CASES[name]["values"]
    schedule = keras.saving.deserialize_keras_object(stored)
    assert_still_there(stored, serialized(schedule))
    tolerance = RTOL * max(values)  # what is lost where a formula subtracts is of the highest rate
    np.testing.assert_allclose(keras_values(schedule, np.array(STEPS)), values, RTOL, tolerance)


SAVED = {case["schedule"]["registered_name"].partition(">")[2] for case in CASES.values()}


def test_every_type_has_saved_values():
    made = {serialized(schedule)["registered_name"] for schedule in schedules().values()}
    missing = sorted(
        {name.partition(">")[2] for name in made if name.startswith("optimization>")} - SAVED
    )
    assert not missing, (
        f"nothing is saved of {', '.join(missing)}: "
        "`python tools/saved_goldens.py schedules --write` adds their values"
    )


def test_every_type_that_was_saved_is_still_registered():
    types = {f"LearningRate.{name}" for name in LR_CLS} | {f"Warmup.{name}" for name in WARMUP_CLS}
    assert SAVED - {"ScaledLearningRate"} <= types
