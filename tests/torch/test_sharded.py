"""Two processes end where one ends, with every wrapper; `sharded` says what each of them runs."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import spike_cases as cases
from tests.torch.common import torch  # without which all this is skipped

from tests.rules import contracts  # isort: skip

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "distributed_torch.md"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed"),
]


def run_two(arguments, **options):
    """Runs a program in two processes, as its page says; returns what they print."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *arguments],
        **{"env": environment, "capture_output": True, "text": True, **options},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("sharded") / "results.json"
    run_two(["--module", "tests.torch.sharded", str(path)])
    return json.loads(path.read_text())


def test_pairs_of_settings_occur():
    from tests.torch import sharded_matrix as matrix

    found = matrix.cases()
    flags = (False, True)
    values = {
        "wrapper": matrix.WRAPPERS,
        "kind": contracts.rules(),
        "clip": [*matrix.CLIPS],
        "average": flags,
        "groups": flags,
        "meta": flags,
    }
    for (one, its), (other, others) in itertools.combinations(values.items(), 2):
        there = {(getattr(case, one), getattr(case, other)) for case in found}
        lacking = {*itertools.product(its, others)} - there
        # What averages by itself has no other average.
        assert {pair for pair in lacking if not _averages_by_itself(one, other, pair)} == set()


def _averages_by_itself(one, other, pair):
    named = dict(zip((one, other), pair, strict=True))
    kind = named.get("kind")
    return named.get("average") is True and contracts.section_of(kind, {}).schedule_free


@pytest.mark.parametrize("kind", contracts.rules())
def test_it_equals_one_process(results, kind):
    own = {k: v for k, v in results["matrix"].items() if k.split(", ")[1] == kind}
    assert len(own) >= 5
    # Gradients are sums of the same float32 numbers in another order.
    assert {label: error for label, error in own.items() if not error < 1e-6} == {}


@pytest.mark.parametrize("kind", contracts.rules())
def test_state_that_one_process_loads_and_saves_goes_on_bit_for_bit(results, kind):
    assert results["checkpoints"][kind] == []


def test_elementwise_rules_work_on_flat_parameters_of_fsdp1(results):
    found = results["fsdp1"]
    assert len(found) == 6
    assert {label: error for label, error in found.items() if not error < 1e-6} == {}


def test_what_needs_whole_weights_refuses_flat_ones(results):
    for label, message in results["refused"].items():
        name = label.partition(" ")[0]
        word = {"adamw": "gradient_clip_norm", "sgd": "clip"}.get(name, name)
        assert message is not None, label
        assert "rows of numbers that hide their shapes" in message
        assert word in message
    assert len(results["refused"]) == 24


def test_zero_redundancy_optimizers_take_the_classes(results):
    assert {name: error for name, error in results["zero_redundancy"].items() if error > 1e-6} == {}


def test_every_process_raises_where_one_has_an_infinite_gradient(results):
    assert results["finite"] == ["Gradients that are infinite or NaN: w"] * 2


def test_gradients_are_brought_into_the_form_of_their_weights(results):
    assert results["partial"] == [1.5] * 3


def test_zclip_goes_by_the_norm_over_all_shards(results):
    initial, gradients, _ = cases.problem()
    expected, clipped = cases.clipped_weights(initial, gradients)
    found = results["spikes"]["zclip"]
    assert found["counts"] == [[clipped, 0]] * 2
    assert_close(found["weights"], expected)


def test_every_process_leaves_out_the_same_steps(results):
    initial, gradients, losses = cases.problem()
    expected = cases.skipped("both", gradients, losses)
    found = results["spikes"]["skip_spikes"]
    assert found["skipped"] == [expected] * 2
    assert found["counts"] == [[0, sum(expected)]] * 2
    assert_close(found["weights"], cases.kept_weights(initial, gradients, expected))
    assert_close(found["average"], cases.kept_average(initial, gradients, expected))


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for path, weight in expected.items():
        np.testing.assert_allclose(found[path], weight, atol=1e-12)  # float64 on both sides
