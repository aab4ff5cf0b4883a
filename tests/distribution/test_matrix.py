"""Two devices, two processes and `fit` end where one device in the trainer's loop ends.

For every registered rule; `matrix` says which clips, accumulations, averages and kinds of
update each meets. What is compared with is one device, plain updates and updates of one batch.
"""

import itertools
import json

import numpy as np
import pytest

from tests.distribution import matrix
from tests.distribution.matrix import Combination
from tests.rules import contracts
from tests.training.test_distribution import free_ports
from tests.training.tiny import finish, start

pytestmark = pytest.mark.slow


def weights_of(runs):
    """Runs each of (paths by kind, environment) in a process; returns the weights of each path."""
    outputs = finish(
        [
            start(["-m", "tests.distribution.matrix", *itertools.chain(*paths.items())], env)
            for paths, env in runs
        ]
    )
    assert all(status == 0 for status, _, _ in outputs), [err for *_, err in outputs]
    return [dict(np.load(path)) for paths, _ in runs for path in paths.values()]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The weights by kind of device; of the two workers, those of both."""
    directory = tmp_path_factory.mktemp("matrix")
    kinds = ("mirrored", "one", "fit")
    path = {kind: str(directory / f"{kind}.npz") for kind in kinds}
    on_one = {kind: path[kind] for kind in ("one", "fit")}
    found = weights_of([({"mirrored": path["mirrored"]}, None), (on_one, None)])
    # After the others, since the machine may have two cores only.
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = []
    for index in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        paths = {"workers": str(directory / f"worker{index}.npz")}
        workers.append((paths, {"TF_CONFIG": config}))
    return dict(zip([*kinds, "worker 0", "worker 1"], [*found, *weights_of(workers)], strict=True))


def combinations(kind, name):
    kind = "workers" if kind.startswith("worker ") else kind
    return [each for each in matrix.combinations(kind) if each.name == name]


def of_combination(values, combination):
    """The weights by path, and the averages by "average/" and path."""
    prefix = f"{combination.label}: "
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def assert_equals_one_device(values, one, combination):
    name, clip, _, averaged, _ = combination
    actual = of_combination(values, combination)
    expected = of_combination(one, Combination(name, clip, accumulation=1, averaged=True))
    if not averaged:
        expected = {k: v for k, v in expected.items() if not k.startswith("average/")}
    assert actual.keys() == expected.keys()
    assert len(expected) == (6 if averaged and not matrix.averages_by_itself(name) else 3)
    # Gradients are the same sums of float32 numbers in another order, and so are fused updates. No
    # algorithm needs more: batches and targets are such that no gradient is so near to 0 that
    # rounding decides its sign. What is rounded may be as large as the weights at the start, though
    # those at the end are small: FTRL multiplies the former by a difference of nearly equal roots.
    starts = [value for key, value in one.items() if key.startswith("start: ")]
    bound = 1e-6 * max(np.abs(value).max() for value in [*starts, *expected.values()])
    for path, value in expected.items():
        message = f"{combination.label}: {path}"
        np.testing.assert_allclose(actual[path], value, rtol=0, atol=bound, err_msg=message)


KINDS = ("mirrored", "worker 0", "worker 1", "fit")


def test_nothing_is_left_out():
    of_kind = {kind: list(matrix.combinations(kind)) for kind in ("mirrored", "workers")}
    for found in of_kind.values():
        assert sorted(each.name for each in found) == sorted(contracts.classes())
        plain = [each for each in found if not each.fused]
        assert {each.clip for each in plain} == set(matrix.CLIPS)
        assert {each.accumulation for each in plain} == set(matrix.ACCUMULATIONS)
        assert {each.averaged for each in plain} == {False, True}
    fused = {(each.name, each.fused) for found in of_kind.values() for each in found}
    assert fused == set(itertools.product(contracts.classes(), (False, True)))
    (on_mirrored, in_workers) = of_kind.values()
    assert {each[1:4] for each in (*on_mirrored, *in_workers) if not each.fused} == set(
        itertools.product(matrix.CLIPS, matrix.ACCUMULATIONS, (False, True))
    )
    fitted = set(matrix.combinations("fit"))
    assert {each.name for each in fitted} == set(contracts.ONE_OF_EACH_KIND)
    assert {each.fused for each in fitted} == {False, True}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", contracts.classes())
def test_it_equals_one_device(results, kind, name):
    for combination in combinations(kind, name):
        assert_equals_one_device(results[kind], results["one"], combination)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", contracts.classes())
def test_updates_are_fused_where_they_should_be(results, kind, name):
    # Two matrices of one shape, of which Muon leaves the head to AdamW, and a vector; XLA does not
    # compile the decompositions of SOAP's matrices in reasonable time.
    kinds = {"muon": 3, "soap": 1}.get(name, 2)
    for combination in combinations(kind, name):
        found = int(results[kind][f"kinds: {combination.label}"])
        assert found == (kinds if combination.fused else 0), combination.label


def test_the_devices_are_as_many_as_they_should_be(results):
    replicas = {kind: int(values["replicas"]) for kind, values in results.items()}
    assert replicas == {"one": 1, "fit": 1, "mirrored": 2, "worker 0": 2, "worker 1": 2}


@pytest.mark.parametrize("name", contracts.classes())
def test_the_weights_have_moved_far(results, name):
    """A difference of one part in a million means something only where weights move by more."""
    for combination in combinations("one", name):
        for path, value in of_combination(results["one"], combination).items():
            if not path.startswith(("average/", "kinds")):
                assert np.abs(value - results["one"][f"start: {path}"]).max() > 2e-5


@pytest.mark.parametrize("clip", [clip for clip in matrix.CLIPS if clip != "none"])
def test_the_clips_act(results, clip):
    """Seen with plain gradient descent; others may not mind the length of a gradient."""
    free = of_combination(results["one"], Combination("sgd", "none", 1, True))
    clipped = of_combination(results["one"], Combination("sgd", clip, 1, True))
    for path, value in clipped.items():
        assert np.abs(value - free[path]).max() > 1e-2
