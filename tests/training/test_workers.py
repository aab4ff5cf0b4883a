"""A worker that ends early ends the others, which say so; training goes on bit for bit."""

import json

import pytest
import tensorflow as tf

from optimization.training import WorkerError
from optimization.training.workers import lost_worker
from tests.training.test_distribution import free_ports
from tests.training.tiny import assert_same_bits, finish_all, run, start, stored

SPEC = tf.train.ClusterSpec({"worker": ["host0:1", "host1:2", "host2:3"]})
GO_ON = "; the same command, run for all workers, goes on from the last checkpoint"
ARGUMENTS = ("--experiment=tiny", "--mode=train", "--params_override=task.hidden=4")

# What TensorFlow says, of a run in which the worker was killed, stopped (SIGSTOP) or had an error.
HEAD = 'Graph execution error:\n\nDetected at node x\n  File "x.py", line 1, in <module>\n\n'
TEXTS = {
    "Collective ops is aborted by: recvmsg:Connection reset by peer\nAdditional GRPC error "
    "information from remote target /job:worker/replica:0/task:1 while calling "
    "/tensorflow.WorkerService/RecvBuf:\n:UNKNOWN:Error": (
        "worker 1 (host1:2) was lost: Connection reset by peer"
    ),
    "Collective ops is aborted by: Error reported from /job:worker/task:2: The following tasks are "
    "unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:2\n": (
        "worker 2 (host2:3) was lost: it gives no sign of life"
    ),
    "Collective ops is aborted by: Failed to send RPC to coordination service. Either the leader "
    "task was preempted.\nAdditional GRPC error information from remote target "
    "/job:worker/replica:0/task:0 while calling /tensorflow.CoordinationService/Heartbeat:": (
        "worker 0 (host0:1) was lost: Failed to send RPC to coordination service"
    ),
    "Collective ops is aborted by: Deadline Exceeded\n\nRPC: /tensorflow.CoordinationService/"
    "Heartbeat\nThe error could be from a previous operation.": (
        "worker 0 (host0:1) was lost: it gives no sign of life"
    ),
    "Collective ops is aborted by: Collective ops is aborted by: <<worker 2 (host2:3) stopped: "
    "KeyError: 'row'>>\nAdditional GRPC error information from remote target "
    "/job:worker/replica:0/task:0 while calling /tensorflow.WorkerService/CompleteInstance:": (
        "worker 2 (host2:3) stopped: KeyError: 'row'"
    ),
    "Input to reshape is a tensor with 4 values": None,
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_worker_is_found_in_what_tensorflow_says(text):
    error = tf.errors.UnavailableError(None, None, HEAD + text)
    assert lost_worker(error, SPEC) == TEXTS[text]


def test_an_error_of_python_is_of_no_other_worker():
    assert lost_worker(ValueError(next(iter(TEXTS))), SPEC) is None


def test_a_chief_is_named_as_such():
    spec = tf.train.ClusterSpec({"chief": ["host0:1"], "worker": ["host1:2"]})
    error = tf.errors.DeadlineExceededError(None, None, "RPC: /tensorflow.CoordinationService/x")
    assert lost_worker(error, spec).startswith("worker chief 0 (host0:1) was lost")


def test_it_is_an_error_that_is_told_in_one_line():
    from optimization.training import binary

    assert binary._told(WorkerError("worker 1 was lost")) == "worker 1 was lost"


def launched(*arguments, **env):
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", **env}
    launcher = ["-m", "tools.launch_local", "--workers=2", "--binary=tests.training.dying", "--"]
    return run([*launcher, *arguments], quiet)


@pytest.mark.slow
def test_a_killed_worker_is_named_and_the_same_command_goes_on(tmp_path):
    arguments = (*ARGUMENTS, f"--model_dir={tmp_path / 'run'}")
    status, out, err = launched(*arguments, DIES="kill 1 8")
    assert status == 128 + 9
    assert err == "worker 1 was killed by SIGKILL; the others end\n"
    (line,) = [line for line in out.splitlines() if "error" in line]
    assert line.startswith("worker 0: error: worker 1 (127.0.0.1:")
    assert line.endswith(GO_ON)
    assert " was lost: " in line
    assert "Traceback" not in out
    assert (tmp_path / "run/ckpt-6.index").exists()
    assert not (tmp_path / "run/ckpt-12.index").exists()
    status, out, err = launched(*arguments, WHOLE=str(tmp_path / "whole"))
    assert status == 0, out
    assert "worker 0: resumed at step 6 from" in out
    assert_same_bits(stored(tmp_path / "run/ckpt-12"), stored(tmp_path / "whole/ckpt-12"))


@pytest.mark.slow
def test_an_error_in_one_worker_is_told_by_the_others(tmp_path):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    strategy = "--params_override=runtime.distribution_strategy=multi_worker_mirrored"
    arguments = ["-m", "tests.training.dying", *ARGUMENTS, f"--model_dir={tmp_path}", strategy]
    processes = []
    for index in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        env = {"TF_CONFIG": config, "DIES": "error 0 4", "TF_CPP_MIN_LOG_LEVEL": "3"}
        processes.append(start(arguments, env))
    (own, _, traceback), (other, _, err) = finish_all(processes)
    assert own == other == 1
    assert traceback.endswith("KeyError: 'row 17'\n")
    told = f"error: worker 0 ({cluster['worker'][0]}) stopped: KeyError: 'row 17'{GO_ON}\n"
    assert err.endswith(told)
    assert "Traceback" not in err
