"""`golden/saved` has files of every type for Keras, PyTorch and JAX, which are still there."""

import pytest

from optimization import OPTIMIZERS_CLS
from tests.agreement import ours
from tests.saved_goldens import Goldens


def types_of(side):
    configs = [case["config"] for case in Goldens(side).cases.values() if "config" in case]
    return {config["optimizer"]["type"] for config in configs}


@pytest.mark.parametrize("side", ["keras", "torch"])
def test_every_case_has_saved_files(side, tmp_path):
    goldens = Goldens(side)
    assert {path.name for path in goldens.unpack(tmp_path).iterdir()} == set(goldens.cases)


@pytest.mark.parametrize("side", ["keras", "torch", "jax"])
def test_every_type_has_saved_files(side):
    missing = sorted(set(ours(OPTIMIZERS_CLS)) - types_of(side))
    assert not missing, (
        f"nothing is saved of {', '.join(missing)}: `python tools/saved_goldens.py {side} --write` "
        "adds files of their defaults and of all their switches, or of what tests/saved_cases.py "
        "says of them"
    )


def test_every_type_with_files_is_still_registered():
    assert types_of("keras") == types_of("torch")
    assert set(OPTIMIZERS_CLS) >= types_of("keras")
    # Those that there were at the first time.
    assert len(types_of("keras")) >= 21
