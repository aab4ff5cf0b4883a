"""A worker that ends early ends the others, which say so; training goes on bit for bit."""

import subprocess
import sys

import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from optimization.training import WorkerError
from optimization.training.workers import lost_worker, noticed_soon
from tests.training.tiny import assert_same_bits, read_summaries, run, stored

SPEC = tf.train.ClusterSpec({"worker": ["host0:1", "host1:2", "host2:3"]})
GO_ON = "; the same command, run for all workers, goes on from the last checkpoint"

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


def test_one_that_is_gone_is_noticed_in_seconds(monkeypatch):
    """As TensorFlow's strategy configures it, which knows its own time only."""
    here = context.context()
    monkeypatch.setattr(here, "_coordination_service_config", None)
    with noticed_soon():
        here.configure_coordination_service(service_type="standalone")
    assert here.coordination_service.heartbeat_timeout_in_ms == 3000
    here.configure_coordination_service(service_type="standalone")
    assert here.coordination_service.heartbeat_timeout_in_ms == 0


def test_it_is_an_error_that_is_told_in_one_line():
    from optimization.training import binary

    assert binary._told(WorkerError("worker 1 was lost")) == "worker 1 was lost"


def test_the_process_ends_without_waiting_for_the_one_that_is_gone():
    """What TensorFlow does when a process ends takes seconds then."""
    program = """
import atexit
from optimization.training import WorkerError, binary

def run():
    print("begun")
    raise WorkerError("worker 1 was lost")

atexit.register(print, "waits")
binary.reporting(run)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "begun\n")
    assert ended.stderr == "error: worker 1 was lost\n"


@pytest.mark.slow
def test_the_others_name_it_and_the_same_command_goes_on_bit_for_bit(tmp_path):
    """One that is killed; then, after the others, one that has an error."""
    launcher = ["-m", "tools.launch_local", "--workers=2", "--binary=tests.training.dying", "--"]
    command = [*launcher, "--experiment=tiny", "--mode=train", f"--model_dir={tmp_path / 'run'}"]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    status, out, err = run(command, quiet | {"DIES": "kill 1 8"})
    assert status == 128 + 9
    assert err == "worker 1 was killed by SIGKILL; the others end\n"
    (line,) = [line for line in out.splitlines() if "error: " in line]
    assert line.startswith("worker 0: error: worker 1 (127.0.0.1:")
    assert " was lost: " in line
    assert line.endswith(GO_ON)
    assert "Traceback" not in out
    assert (tmp_path / "run/ckpt-6.index").exists()
    assert not (tmp_path / "run/ckpt-12.index").exists()

    whole = tmp_path / "whole"
    status, out, err = run(command, quiet | {"WHOLE": str(whole), "DIES": "error 1 4"})
    assert "worker 0: resumed at step 6 from" in out
    assert_same_bits(stored(tmp_path / "run/ckpt-12"), stored(whole / "ckpt-12"))
    (resumed, expected) = (read_summaries(run / "train") for run in (tmp_path / "run", whole))
    for summaries in (resumed, expected):
        summaries.pop("steps_per_second", None)
    assert resumed == expected
    assert status == 1
    of_other, own = sorted(line for line in out.splitlines() if "error: " in line)
    assert own == "worker 1: error: OSError: row 17 (--verbosity=1 shows where)"
    assert of_other.startswith("worker 0: error: worker 1 (127.0.0.1:")
    assert of_other.endswith(f" stopped: OSError: row 17{GO_ON}")
    assert "Traceback" not in out
