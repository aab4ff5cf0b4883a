"""Processes that are killed: forks of this one, which has imported what they need."""

import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

_COUNT = struct.Struct("q")
# How often the number of steps is looked at; a step of a small network takes longer.
_LOOK = 0.0005
# How long one life may take.
_LIMIT = 600.0


class Steps:
    """A number of steps that a process counts and another one sees."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _COUNT.size)

    def count(self) -> None:
        """Counts one."""
        self.set(self.taken + 1)

    def set(self, taken: int) -> None:
        """Sets how many there are."""
        _COUNT.pack_into(self._memory, 0, taken)

    @property
    def taken(self) -> int:
        """How many there are."""
        return _COUNT.unpack_from(self._memory, 0)[0]


class Kill(NamedTuple):
    """When a process is killed: that long after it has taken that many steps."""

    steps: int
    seconds: float


def draw(chance: random.Random, most_steps: int) -> Kill:
    """Returns a random moment: one of eight is before the first step, in the start."""
    if chance.random() < 1 / 8:
        return Kill(0, chance.uniform(0.0, 2.0))
    return Kill(chance.randint(1, most_steps), chance.uniform(0.0, 0.05))


class EndedError(Exception):
    """A process that was to be killed, or to end well, ended otherwise."""


def run(work: Callable[[Steps], None], kill: Kill | None = None) -> bool:
    """Runs `work` in a process; returns whether it was killed before it ended by itself.

    Raises:
        EndedError: If the work failed, with what it said.
    """
    steps = Steps()
    with open(os.memfd_create("said"), "w+", encoding="utf-8", errors="replace") as said:
        pid = os.fork()
        if pid == 0:
            _be(work, steps, said.fileno())
        status = _watch(pid, steps, kill)
        if status == 0:
            return False
        if status == -signal.SIGKILL and kill is not None:
            return True
        said.seek(0)
        raise EndedError(f"a process ended with status {status}:\n{said.read()[-4000:]}")


def _be(work: Callable[[Steps], None], steps: Steps, said: int) -> None:
    """Does the work, as a process of its own that says nothing unless it fails."""
    status = 1
    try:
        sys.stdout.flush()
        for stream in (1, 2):
            os.dup2(said, stream)
        work(steps)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _watch(pid: int, steps: Steps, kill: Kill | None) -> int:
    """Waits for a process, and kills it when its moment has come; returns its exit status."""
    started = time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if kill is not None and steps.taken >= kill.steps:
            time.sleep(kill.seconds)
            break
        if time.monotonic() - started > _LIMIT:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise EndedError(f"a process took longer than {_LIMIT:.0f} s")
        time.sleep(_LOOK)
    os.kill(pid, signal.SIGKILL)  # There is one until it is waited for.
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
