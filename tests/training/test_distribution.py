"""Training on several replicas equals training on one, in processes of their own."""

import json
import os
import socket

import numpy as np
import pytest

from tests.training.tiny import finish, run, start

pytestmark = pytest.mark.slow

# Trains in argv[1] with the overrides in argv[3:], on argv[2] logical devices.
SCRIPT = """
import json, sys
import tensorflow as tf
directory, devices, overrides = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
import numpy as np
from optimization.training import TrainingError
from tests.training.tiny import read_summaries, trainer, weights
try:
    one = trainer(directory, *overrides)
    results = one.train(evaluate=True)
except TrainingError as error:
    sys.exit(f"error: {error}")
results["replicas"] = one.strategy.num_replicas_in_sync
np.savez(sys.argv[1] + f"/weights{'' if one.chief else '-other'}.npz", **weights(one))
print(json.dumps(results))
"""

# A validation batch of 32 leaves 8 of the 40 examples to the second, and one replica has none.
OVERRIDES = (
    "task.validation_data.global_batch_size=32",
    "trainer.optimizer_config.optimizer.sgd.global_clipnorm=0.5",
    "trainer.optimizer_config.ema={average_decay: 0.9}",
    "trainer.steps_per_loop=5",
)


def one_process(directory, devices, *overrides):
    os.makedirs(directory)
    status, out, err = run(["-c", SCRIPT, str(directory), str(devices), *overrides])
    assert status == 0, err
    return json.loads(out.splitlines()[-1]), np.load(directory / "weights.npz")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def two_processes(directory, *overrides):
    os.makedirs(directory)
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    strategy = "runtime.distribution_strategy=multi_worker_mirrored"
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        arguments = ["-c", SCRIPT, str(directory), "1", strategy, *overrides]
        processes.append(start(arguments, {"TF_CONFIG": json.dumps(task)}))
    outputs = finish(processes)
    assert all(status == 0 for status, _, _ in outputs), [err for *_, err in outputs]
    return [json.loads(out.splitlines()[-1]) for _, out, _ in outputs]


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


def test_two_devices_and_two_processes_equal_one(tmp_path):
    expected, weights = one_process(tmp_path / "one", 1, *OVERRIDES)
    assert expected["replicas"] == 1
    mirrored, mirrored_weights = one_process(tmp_path / "mirrored", 2, *OVERRIDES)
    assert mirrored["replicas"] == 2
    assert_alike(mirrored_weights, weights)
    assert_same_results(mirrored, expected)
    of_chief, of_other = two_processes(tmp_path / "workers", *OVERRIDES)
    assert of_chief["replicas"] == 2
    assert of_other == of_chief
    assert_alike(np.load(tmp_path / "workers/weights.npz"), weights)
    assert_alike(np.load(tmp_path / "workers/weights-other.npz"), weights)
    assert_same_results(of_chief, expected)


def test_two_devices_resume_where_they_stopped(tmp_path):
    """A run on two devices goes on on two, or on one, from the same checkpoint."""
    network = "task.hidden=4,task.train_data.shuffle=true"
    _, whole = one_process(tmp_path / "whole", 2, network)
    directory = tmp_path / "parts"
    one_process(directory, 2, network, "trainer.train_steps=7")
    status, _, err = run(["-c", SCRIPT, str(directory), "2", network])
    assert status == 0, err
    resumed = np.load(directory / "weights.npz")
    for name in whole.files:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.train_data.global_batch_size=7"], "must be a multiple of the 2 replicas, got 7"),
        (["runtime.enable_xla=true"], "works on one device only, there are 2"),
    ],
)
def test_what_two_devices_cannot_do_is_told(tmp_path, overrides, message):
    status, _, err = run(["-c", SCRIPT, str(tmp_path), "2", *overrides])
    assert status == 1
    assert message in err


def test_one_device_is_used_where_one_is_asked_for(tmp_path):
    results, _ = one_process(tmp_path / "one", 2, "runtime.distribution_strategy=one_device")
    assert results["replicas"] == 1
