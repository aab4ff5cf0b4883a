"""Watches what an input does: code that is run, files that are opened, time and memory."""

import contextlib
import importlib
import os
import pkgutil
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

SECONDS = 1.0
"""The time of a processor that an input may take."""
MEGABYTES = 200
"""The memory that an input may take."""

# Events of `sys.addaudithook`, or the beginnings of their names.
_FORBIDDEN = (
    *("exec", "compile", "import", "open", "subprocess.", "socket.", "ctypes.", "pickle."),
    *("marshal.", "shutil.", "tempfile.", "urllib.", "webbrowser.", "mmap.", "pty.", "code."),
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "os.startfile", "os.kill"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.chdir"),
)


class Fault(BaseException):
    """An input has done what it may not; no `except Exception` on the way swallows it."""


class _Watch:
    """What is watched for at present."""

    given: set[str] | None = None
    seen: str = ""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    given = _Watch.given
    if given is None or not event.startswith(_FORBIDDEN):
        return
    if event == "open" and (isinstance(arguments[0], int) or _name(arguments[0]) in given):
        return
    # A pair of sockets of this process, by which signals wake it, leads nowhere else.
    if event == "socket.__new__" and arguments[1] == getattr(socket, "AF_UNIX", None):
        return
    _Watch.given = None  # what reports it opens files of its own
    _Watch.seen = f"{event} {arguments!r:.300}"
    raise Fault(_Watch.seen)


def _name(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))


# Packages of ours that need no framework, but for these modules; and what they, and Python itself,
# import when it is needed.
_OURS = ("bridges", "cli", "configs", "lint", "matching", "plots", "rules", "schedules")
_OF_KERAS = ("exact", "keras_schedules", "scaled")
_LATER = (
    *("dataclasses_json", "regex", "numpy", "encodings.utf_8_sig", "encodings.cp437", "bz2"),
    *("optimization.optimizer_factory", "optimization.group_rows", "lzma", "uuid"),
    *("click._textwrap", "encodings.ascii"),
)


def import_all() -> None:
    """Imports what an input may need, so that from then on each import is a fault."""
    for package in _OURS:
        found = importlib.import_module(f"optimization.{package}")
        for module in pkgutil.iter_modules(found.__path__, f"{found.__name__}."):
            if not module.name.endswith(_OF_KERAS):
                importlib.import_module(module.name)
    for name in _LATER:
        importlib.import_module(name)


_installed: list[bool] = []


@contextlib.contextmanager
def watched(given: Iterable[str] = ()) -> Iterator[None]:
    """Raises a `Fault` where code runs that is none of this package's, or a file is opened.

    Args:
        given: The files that may be opened.
    """
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _Watch.seen, _Watch.given = "", {_name(path) for path in given}
        try:
            yield
        finally:
            _Watch.given = None
    if _Watch.seen:  # and somebody has swallowed it
        raise Fault(_Watch.seen)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raises a `Fault` where an input takes more than `SECONDS` or `MEGABYTES`."""
    before = _peak()
    signal.signal(signal.SIGPROF, _out_of_time)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if (taken := _peak() - before) > MEGABYTES:
        raise Fault(f"took {taken:.0f} MB of memory")


def cap_memory() -> None:
    """Keeps the machine alive: past 2 GB more than now, the process has a `MemoryError`."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + 2**31
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _out_of_time(*_: Any) -> None:
    raise Fault(f"took more than {SECONDS:g} s of a processor")


def _peak() -> float:
    """Returns the most memory that the process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
