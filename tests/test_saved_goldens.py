"""`golden/saved` has files of the same types for Keras and for PyTorch, which are still there."""

import pytest

from optimization import OPTIMIZERS_CLS
from tests.saved_goldens import Goldens


def types_of(side):
    configs = [case["config"] for case in Goldens(side).cases.values() if "config" in case]
    return {config["optimizer"]["type"] for config in configs}


@pytest.mark.parametrize("side", ["keras", "torch"])
def test_every_case_has_saved_files(side, tmp_path):
    goldens = Goldens(side)
    assert {path.name for path in goldens.unpack(tmp_path).iterdir()} == set(goldens.cases)


def test_every_type_with_files_is_still_registered():
    """One that is added later has files once `tools/saved_goldens.py` has saved it."""
    assert types_of("keras") == types_of("torch")
    assert set(OPTIMIZERS_CLS) >= types_of("keras")
    # Those that there were at the first time.
    assert len(types_of("keras")) >= 21
