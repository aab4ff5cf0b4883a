"""Training on several replicas equals training on one, in processes of their own."""

import json
import socket

import numpy as np
import pytest

from tests.training.tiny import finish, read_summaries, run, start

pytestmark = pytest.mark.slow

# Trains on argv[1] logical devices, in one directory after another: argv[2] is a list of them, each
# with overrides.
SCRIPT = """
import functools, json, sys
import tensorflow as tf
devices, runs = int(sys.argv[1]), json.loads(sys.argv[2])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
import numpy as np
from tensorflow.python.distribute import cross_device_utils
from optimization.training import Trainer, TrainingError
from tests.training.tiny import trainer, weights

def dying(one, *arguments):
    if one.step >= 9:
        raise TrainingError("died")
    return Trainer._run_loop(one, *arguments)

def trained(directory, *overrides):
    # TensorFlow numbers what devices exchange; the same numbers again would be of other shapes.
    cross_device_utils.INSTANCE_KEY_START_NUMBER += 10_000
    try:
        one = trainer(directory, *(o for o in overrides if o not in ("dies", "restores")))
        replicas = {"replicas": one.strategy.num_replicas_in_sync}
        if "restores" in overrides:
            one.restore()
            np.savez(f"{directory}/{one.step}-on-{replicas['replicas']}.npz", **weights(one))
            return replicas
        if "dies" in overrides:
            one._run_loop = functools.partial(dying, one)
        results = one.train(evaluate=True)
    except TrainingError as error:
        return {"error": str(error)}
    np.savez(directory + f"/weights{'' if one.chief else '-other'}.npz", **weights(one))
    return {**results, **replicas}

print(json.dumps([trained(*run) for run in runs]))
"""

# A validation batch of 32 leaves 8 of the 40 examples to the second, and one replica has none.
OVERRIDES = (
    "task.validation_data.global_batch_size=32",
    "trainer.optimizer_config.optimizer.sgd.global_clipnorm=0.5",
    "trainer.optimizer_config.ema={average_decay: 0.9}",
    "trainer.steps_per_loop=5",
)
NETWORK = "task.hidden=4,task.train_data.shuffle=true"
SUMMARIES = "trainer.summary_interval=5,trainer.checkpoint_interval=3,trainer.validation_interval=2"
ONE = "runtime.distribution_strategy=one_device"
ACCUMULATED = (
    "trainer.optimizer_config.optimizer={type: adamw, adamw: {gradient_accumulation_steps: 2}}",
    "trainer.optimizer_config.ema={average_decay: 0.9}",
)

# What runs on two devices, by directory.
ON_TWO = [
    ("mirrored", *OVERRIDES),
    ("whole", NETWORK),
    ("parts", NETWORK, "trainer.train_steps=7"),
    ("parts", NETWORK),
    ("lived", NETWORK, SUMMARIES),
    ("died", NETWORK, SUMMARIES, "dies"),
    ("died", NETWORK, SUMMARIES),
    ("unmoved", *ACCUMULATED),
    # Two devices, one, two; at step 5 half of an update is accumulated.
    ("moved", *ACCUMULATED, "trainer.train_steps=5"),
    ("moved", *ACCUMULATED, "restores"),
    ("moved", *ACCUMULATED, "restores", ONE),
    ("moved", *ACCUMULATED, "trainer.train_steps=9", ONE),
    ("moved", *ACCUMULATED, "restores", ONE),
    ("moved", *ACCUMULATED, "restores"),
    ("moved", *ACCUMULATED),
    ("one", ONE, *OVERRIDES),
    ("odd batch", "task.train_data.global_batch_size=7"),
    ("xla", "runtime.enable_xla=true"),
]


def arguments(devices, directory, runs):
    """Returns those of a process that trains below a directory."""
    named = [(str(directory / name), *overrides) for name, *overrides in runs]
    return ["-c", SCRIPT, str(devices), json.dumps(named)]


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    """The results of what runs on two devices, and the directory above."""
    directory = tmp_path_factory.mktemp("on_two")
    status, out, err = run(arguments(2, directory, ON_TWO))
    assert status == 0, err
    names = [name for name, *_ in ON_TWO]
    return dict(zip(names, json.loads(out.splitlines()[-1]), strict=True)), directory


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def two_processes(directory, *overrides):
    ports = [f"127.0.0.1:{port}" for port in free_ports(2)]
    strategy = "runtime.distribution_strategy=multi_worker_mirrored"
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": index}}
        of_one = arguments(1, directory, [("workers", strategy, *overrides)])
        processes.append(start(of_one, {"TF_CONFIG": json.dumps(task)}))
    outputs = finish(processes)
    assert all(status == 0 for status, _, _ in outputs), [err for *_, err in outputs]
    return [json.loads(out.splitlines()[-1])[0] for _, out, _ in outputs]


def assert_alike(weights, expected):
    assert sorted(weights.files) == sorted(expected.files)
    for name in expected.files:
        value = expected[name].astype("float64")
        # Sums over replicas are float32 sums in another order.
        bound = 1e-6 * max(np.abs(value).max(), 1.0)
        np.testing.assert_allclose(weights[name], value, rtol=0, atol=bound, err_msg=name)


def assert_same_results(results, expected):
    for name, value in expected.items():
        if name != "replicas":
            np.testing.assert_allclose(results[name], value, rtol=1e-5, err_msg=name)


def test_two_devices_and_two_processes_equal_one(on_two, tmp_path):
    results, directory = on_two
    expected, weights = results["one"], np.load(directory / "one/weights.npz")
    assert expected["replicas"] == 1
    assert results["mirrored"]["replicas"] == 2
    assert_alike(np.load(directory / "mirrored/weights.npz"), weights)
    assert_same_results(results["mirrored"], expected)
    of_chief, of_other = two_processes(tmp_path, *OVERRIDES)
    assert of_chief["replicas"] == 2
    assert of_other == of_chief
    assert_alike(np.load(tmp_path / "workers/weights.npz"), weights)
    assert_alike(np.load(tmp_path / "workers/weights-other.npz"), weights)
    assert_same_results(of_chief, expected)


def test_two_devices_resume_where_they_stopped(on_two):
    _, directory = on_two
    whole, resumed = (np.load(directory / f"{name}/weights.npz") for name in ("whole", "parts"))
    for name in whole.files:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)


def test_a_run_goes_on_on_another_number_of_devices(on_two):
    """Its state is there bit for bit, and it trains on as it would have."""
    _, directory = on_two
    for step in (5, 9):
        moved, same = (np.load(directory / f"moved/{step}-on-{n}.npz") for n in (1, 2))
        assert sorted(moved.files) == sorted(same.files)
        for name in same.files:
            np.testing.assert_array_equal(moved[name], same[name], err_msg=name)
    moved, unmoved = (np.load(directory / f"{name}/weights.npz") for name in ("moved", "unmoved"))
    assert_alike(moved, unmoved)


@pytest.mark.parametrize("folder", ["train", "validation"])
def test_summaries_of_two_devices_go_on_half_way(on_two, folder):
    """Each device has metrics and moving statistics of its own."""
    _, directory = on_two
    lived, died = (read_summaries(directory / name / folder) for name in ("lived", "died"))
    for summaries in (lived, died):
        summaries.pop("steps_per_second", None)
    assert died == lived


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("odd batch", "must be a multiple of the 2 replicas, got 7"),
        ("xla", "works on one device only, there are 2"),
    ],
)
def test_what_two_devices_cannot_do_is_told(on_two, name, message):
    assert message in on_two[0][name]["error"]
