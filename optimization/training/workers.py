"""Several workers: when one of them ends early, all end, and each says which one and why."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context  # what workers tell each other has no public name

from optimization.training.errors import WorkerError, first_line
from optimization.training.signals import Stopped

# How many ms a worker may give no sign of life, which a thread of TensorFlow gives whatever the
# program does. TensorFlow's own 10 s are a long time to wait for nothing.
_SILENCE = 3000
_GO_ON = "the same command, run for all workers, goes on from the last checkpoint"
# What one worker has told the others, which the error of their next exchange holds.
_REPORT = re.compile(r"<<(worker .*?)>>", re.DOTALL)
# A name such as /job:worker/replica:0/task:1, where it stands for a worker that is gone.
_TASK = r"/job:(\w+)/replica:0/task:(\d+)"
_UNREACHABLE = re.compile(rf"([^\n]*)\n[^\n]*remote target {_TASK}")
_SILENT = re.compile(rf"stopped sending heartbeats\):\s*{_TASK}")
_NO_ANSWER = "RPC: /tensorflow.CoordinationService"  # of the first worker


@contextlib.contextmanager
def noticed_soon() -> Iterator[None]:
    """Has the workers of a strategy that is made inside notice in seconds when one is gone."""
    here = context.context()
    here.configure_coordination_service = functools.partial(
        here.configure_coordination_service, heartbeat_timeout_in_ms=_SILENCE
    )
    try:
        yield
    finally:
        del here.configure_coordination_service


def ends_with_the_others(method: Callable) -> Callable:
    """Decorates a method of a `Trainer`, of which the workers of `strategy` run the same calls.

    An error in one worker is told to the others, which raise a `WorkerError` with its name and its
    error where they wait for it; so they do if it was killed, or its machine is gone.
    """

    @functools.wraps(method)
    def together(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except WorkerError:
            raise
        except BaseException as error:
            if isinstance(error, Stopped) and error.together:
                raise  # They end by themselves.
            strategy = getattr(self, "strategy", None)  # An error may come before there is one.
            if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
                raise
            resolver = strategy.cluster_resolver
            if resolver is None or not resolver.task_type:  # the only worker
                raise
            spec = resolver.cluster_spec()
            lost = lost_worker(error, spec)
            own = _named(resolver.task_type, resolver.task_id, spec)
            _tell(lost or f"{own} stopped: {first_line(error)}")
            if lost is None:
                raise
            raise WorkerError(f"{lost}; {_GO_ON}") from error

    return together


def lost_worker(error: BaseException, spec: tf.train.ClusterSpec) -> str | None:
    """Returns which other worker ended, and why; None for an error that has another cause."""
    if not isinstance(error, tf.errors.OpError):
        return None
    text = str(error)
    if told := _REPORT.search(text):
        return told[1]
    job, index = "chief" if "chief" in spec.jobs else "worker", 0
    reason = "it gives no sign of life"
    if silent := _SILENT.search(text):
        job, index = silent[1], int(silent[2])
    # Where the text went through several workers, the first of them is the one next to the loss.
    elif unreachable := _UNREACHABLE.search(text):
        job, index = unreachable[2], int(unreachable[3])
        reason = unreachable[1].rpartition("aborted by: ")[2].removeprefix("recvmsg:")
        reason = reason.partition(". ")[0]
    elif _NO_ANSWER not in text:
        return None
    return f"{_named(job, index, spec)} was lost: {reason}"


def _named(job: str, index: int, spec: tf.train.ClusterSpec) -> str:
    """Returns a worker's name and address."""
    kind = "worker" if job == "worker" else f"worker {job}"
    return f"{kind} {index} ({spec.task_address(job, index)})"


def _tell(text: str) -> None:
    """Tells all workers; each of them sees it in an error of what it waits for."""
    with contextlib.suppress(Exception):  # The worker that carries such news may be the one lost.
        context.context().report_error_to_cluster(tf.errors.ABORTED, f"<<{text}>>")
