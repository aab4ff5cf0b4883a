"""An overflow on one of two devices skips the update on both."""

import json

import pytest

from tests.training.tiny import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reports():
    status, out, err = run(["-m", "tests.distribution.overflow"])
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(("scale", "after"), [("dynamic", 32.0), ("64.0", 64.0)])
def test_an_overflow_on_one_device_skips_the_update_on_both(reports, scale, after, accumulation):
    report = reports[f"{scale} {accumulation}"]
    assert report["replicas"] == 2
    assert report["copies"] == [2]
    # Weights, momenta and averages of two layers and a normalization, and the iterations.
    assert report["states"] >= 3 * 6 + 1
    assert report["changed"] == []
    assert report["steps"] == 3
    assert report["updates"] == 2
    assert report["skipped"] == 1
    assert report["scale"] == after


def test_raise_tells_it_on_two_devices_too(reports):
    assert "after 2 updates" in reports["raise"]
    assert "tiny/hidden/kernel" in reports["raise"]
