"""`golden/saved` has files of every type of optimizer that there was when they were written."""

import pytest

from optimization import OPTIMIZERS_CLS
from tests.saved_goldens import Goldens

# A type that is added later has files once `tools/saved_goldens.py` has saved it.
TYPES = {
    *("sgd", "sgd_experimental", "sgd_torch", "rmsprop", "adagrad", "adadelta", "ftrl", "adam"),
    *("adam_experimental", "adamw", "adamw_experimental", "adamax", "nadam", "lamb", "lars"),
    *("adafactor", "adafactor_keras", "lion", "muon", "schedule_free_adamw", "schedule_free_sgd"),
}


@pytest.mark.parametrize("side", ["keras", "torch"])
def test_every_type_has_saved_files(side, tmp_path):
    goldens = Goldens(side)
    configs = [case["config"] for case in goldens.cases.values() if "config" in case]
    assert {config["optimizer"]["type"] for config in configs} >= TYPES
    assert {path.name for path in goldens.unpack(tmp_path).iterdir()} == set(goldens.cases)


def test_every_type_is_still_registered():
    assert set(OPTIMIZERS_CLS) >= TYPES
