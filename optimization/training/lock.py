"""Locks of directories: one process at a time writes what belongs together.

The kernel frees a lock when the process that holds it ends, however it ends.
"""

import contextlib
import datetime
import json
import os
import socket
import typing
from collections.abc import Callable, Iterator

from optimization.training.errors import LockedError
from optimization.training.progress import say

if typing.TYPE_CHECKING:
    from optimization.training.trainer import Trainer

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
"""The file in a directory that is locked; it stays there, and says who holds the lock."""

_held: set[typing.TextIO] = set()


@contextlib.contextmanager
def locked(directory: str, does: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a directory, which is made if need be.

    >>> with locked(model_dir, "trains", print), locked(model_dir, "trains", print):
    ...     pass  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    optimization.training.errors.LockedError: ... is in use: this process trains there since ...

    Args:
        directory: The directory.
        does: What the holder does there, for the error of others.
        warn: Called with a warning where the filesystem knows no locks; nothing is locked then.

    Raises:
        LockedError: If it is held, by whom and since when.
    """
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, LOCK_FILE), "a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except BlockingIOError:
            raise LockedError(_in_use(directory, file)) from None
        except OSError as error:
            reason = error.strerror or error
            warn(f"warning: {directory!r} can't be locked ({reason}): no other process may use it")
            yield
            return
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        host = socket.gethostname()
        _write(file, json.dumps({"does": does, "pid": os.getpid(), "host": host, "since": since}))
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)
            _write(file, "")


@contextlib.contextmanager
def locked_for(trainer: "Trainer", *, trains: bool, evaluates: bool) -> Iterator[None]:
    """Holds what a trainer writes: its `model_dir`, and the places of evaluations."""
    does = {trainer.model_dir: "trains"} if trains else {}
    if evaluates:
        config = trainer.config.trainer
        places = (config.validation_summary_subdir, config.best_checkpoint_export_subdir)
        does |= {os.path.join(trainer.model_dir, place): "evaluates" for place in places if place}
    with contextlib.ExitStack() as stack:
        for directory, verb in does.items() if trainer.writes else ():
            stack.enter_context(locked(directory, verb, lambda text: say(trainer.console, text)))
        yield


@contextlib.contextmanager
def recording(trainer: "Trainer", wanted: bool = True) -> Iterator[bool]:
    """Holds the places of evaluations if one is to be recorded; says whether it can be."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked_for(trainer, trains=False, evaluates=wanted))
        except LockedError as error:
            say(trainer.console, f"no summaries and best weights are written: {error}")
            wanted = False
        yield wanted


def _lock(file: typing.TextIO) -> None:
    if fcntl is None:
        raise OSError("this system has no flock")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write(file: typing.TextIO, text: str) -> None:
    with contextlib.suppress(OSError):  # as of a full disk: the lock holds without
        file.truncate(0)
        file.write(text)
        file.flush()


def _in_use(directory: str, file: typing.TextIO) -> str:
    file.seek(0)
    try:
        holder = json.load(file)
        own = (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
        who = "this process" if own else f"process {holder['pid']} on {holder['host']}"
        told = f"{who} {holder['does']} there since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # It has the lock, and has not yet said who it is.
        told = "another process has just begun there"
    return f"{directory!r} is in use: {told}; wait for it, end it, or take another --model_dir"


def _let_go() -> None:
    for file in _held:
        with contextlib.suppress(OSError):
            os.close(file.fileno())
    _held.clear()


if hasattr(os, "register_at_fork"):  # The lock would live as long as any process that is forked.
    os.register_at_fork(after_in_child=_let_go)
