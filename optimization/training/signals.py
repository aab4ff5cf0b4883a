"""Signals that end a run: its steps end, everything is saved, and the exit status tells of it.

Python runs no handler as long as TensorFlow computes, and a compiled loop may compute for hours. A
thread gets to know of a signal at once, and sets a variable that the loop reads.
"""

import contextlib
import functools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
"""The signals that end a run; Windows has no SIGHUP."""

# Seconds in which signals are the same one: `timeout` sends its own to a process and to its group.
_SAME = 0.1
# Seconds that the main thread may be busy with what nothing is lost of, before it is left there.
_PATIENCE = 1.0
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(SystemExit):
    """A signal has ended a run, and what was to be saved is; `code` is the exit status.

    Args:
        signum: The signal.
        together: Whether all of several workers end with it.
    """

    def __init__(self, signum: int, together: bool = False):
        super().__init__(128 + signum)
        self.together = together
        self._signum = signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self._signum).name}"


class Stop:
    """What the parts of a run know of signals, and they of it.

    As long as nobody says otherwise a signal raises `Stopped` in the main thread, at once.

    Attributes:
        signum: The signal that came; None for none.
        told: What is told of the end, such as "saved at step 8".
        loses_nothing: Says whether the run may be left as it is.
        leaving: Called before the process is left from where Python doesn't run.
        before: The handlers in the place of which it is.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.told = "there was nothing to save"
        self.loses_nothing: Callable[[], bool] = lambda: True
        self.leaving: Callable[[], None] | None = None
        self.before: dict[int, Any] = {}
        self._raises, self._leaves = True, True
        self._listener: Callable[[int], object] | None = None
        self._answered = threading.Event()
        # Held where the thread acts on what the main thread says. No handler may wait for it.
        self._acting = threading.RLock()

    @property
    def status(self) -> int:
        """The exit status."""
        return 128 + (self.signum or 0)

    def check(self) -> None:
        """Raises `Stopped` if a signal came."""
        if self.signum is not None:
            self.answer()
            raise Stopped(self.signum)

    def answer(self) -> None:
        """Says that the main thread has heard of the signal, and is not to be left."""
        self._answered.set()

    def agree(self, signum: int) -> None:
        """Raises `Stopped` in each of several workers, of which one got a signal."""
        self.signum = signum
        self.answer()
        raise Stopped(signum, together=True)

    @contextlib.contextmanager
    def section(self, raises: bool) -> Iterator[None]:
        """Says whether a signal raises `Stopped` inside, at once; else the run asks by `check`."""
        before = self._raises, self._leaves
        self._set(raises, raises)
        try:
            if raises:
                self.check()
            yield
            if raises:
                self.check()
        finally:
            self._set(*before)

    @contextlib.contextmanager
    def waiting(self, leaves: bool) -> Iterator[None]:
        """Says whether the process may be left inside, where Python doesn't run."""
        before = self._leaves
        self._set(self._raises, leaves)
        try:
            yield
        finally:
            self._set(self._raises, before)

    def _set(self, raises: bool, leaves: bool) -> None:
        self._raises = False  # No signal comes between here and the end.
        with self._acting:
            self._leaves = leaves
        self._raises = raises

    @contextlib.contextmanager
    def telling(self, listener: Callable[[int], object]) -> Iterator[None]:
        """Calls `listener` with 0 and, in another thread, with the number of a signal."""
        try:
            self._listener = listener
            with self._acting:
                listener(self.signum or 0)
            yield
        finally:
            with self._acting:
                self._listener = None

    def take(self) -> None:
        """Makes it the handler, once more where something else has taken a signal since."""
        for number in self.before:
            signal.signal(number, self.handle)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Is the handler, in the main thread."""
        del frame
        self.signum = self.signum or signum
        if self._raises and not self._answered.is_set():
            self.check()

    def watch(self, received: socket.socket, taken: Collection[int], others: int) -> None:
        """Is what a thread does, as long as the socket gets the numbers of signals.

        Args:
            received: The socket.
            taken: The signals that are ours.
            others: The file to which somebody else wants the numbers too; -1 for none.
        """
        ends = False
        while numbers := received.recv(64):
            if others >= 0:
                with contextlib.suppress(OSError):
                    os.write(others, numbers)
            signum = next((number for number in numbers if number in taken), None)
            if signum is None:
                continue
            if ends:
                again = f"{signal.Signals(signum).name}, the second signal"
                self._leave(f"left at once by {again}: what was saved stays as it is")
            ends = True
            self._begin(signum)
            time.sleep(_SAME)
            with contextlib.suppress(BlockingIOError):
                received.recv(64, socket.MSG_DONTWAIT)

    def _begin(self, signum: int) -> None:
        self.signum = self.signum or signum
        with self._acting:
            if self._listener is not None:
                self._listener(signum)
        if not self._raises:
            name = signal.Signals(signum).name
            _write(f"{name}: the run ends after this step; a second signal ends it at once")
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        """Leaves the process if the main thread doesn't answer, and nothing is lost by it."""
        while not self._answered.wait(_PATIENCE):
            with self._acting:
                if self._leaves and self.loses_nothing() and not self._answered.is_set():
                    self._leave(self.message())

    def _leave(self, text: str) -> None:
        with contextlib.suppress(Exception):
            if self.leaving is not None:
                self.leaving()
        _write(text)
        with contextlib.suppress(OSError):
            if os.isatty(1):  # A progress bar has hidden it.
                os.write(1, _SHOW_CURSOR)
        os._exit(self.status)

    def message(self) -> str:
        """Returns how the run has ended, in words."""
        return f"{Stopped(self.signum or 0)}: {self.told}"


@functools.cache
def _standard_error() -> int:
    """Returns a copy of the descriptor, which is turned aside while TensorFlow loads."""
    return os.dup(2)


def _write(text: str) -> None:
    # Whatever the main thread does with `sys.stderr` at this moment.
    with contextlib.suppress(OSError):
        os.write(_standard_error(), f"{text}\n".encode())


_current: Stop | None = None


def current() -> Stop:
    """Returns the `Stop` of what the main thread does; elsewhere one that no signal comes to."""
    return _current if _current is not None and _in_main_thread() else Stop()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def stopping(door: bool = False) -> Iterator[Stop]:
    """Has signals end what runs inside, and tells of it on standard error.

    It takes those signals with which the process does what Python, or the system, does by itself;
    others are somebody's own. Inside of another `stopping`, and in another thread than the main
    one, it does nothing.

    Args:
        door: Whether the caller makes the exit status, and nothing is to be raised at the end.

    Raises:
        Stopped: At the end, if a signal came.
        KeyboardInterrupt: In its place for SIGINT.
    """
    global _current
    usual = (signal.SIG_DFL, signal.default_int_handler)
    if _current is not None or not _in_main_thread():
        yield current()
        return
    stop = Stop()
    stop.before = {s: f for s in SIGNALS if (f := signal.getsignal(s)) in usual}
    if not stop.before:
        yield stop
        return
    with contextlib.suppress(OSError):  # it is closed
        _standard_error()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wakeup = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
    arguments = (theirs, tuple(stop.before), wakeup)
    threading.Thread(target=stop.watch, args=arguments, daemon=True).start()
    _current = stop
    try:
        stop.take()
        yield stop
    except (SystemExit, KeyboardInterrupt):
        if stop.signum is None:
            raise
    finally:
        stop.answer()
        _put_back(wakeup)
        ours.close()  # which ends the thread
    if stop.signum is not None:
        print(stop.message(), file=sys.stderr, flush=True)
        if door:
            return
        raise KeyboardInterrupt if stop.signum == signal.SIGINT else Stopped(stop.signum)


def _put_back(wakeup: int = -1) -> None:
    """Has signals do what they did before."""
    global _current
    stop, _current = _current, None
    if stop is not None:
        signal.set_wakeup_fd(wakeup)
        for number, handler in stop.before.items():
            signal.signal(number, handler)


# A process that is forked is no run, and has to say nothing to ours when a signal ends it: none may
# come before its handlers are as they were.
_masks: list[set[int]] = []


def _block() -> None:
    if _current is not None:
        _masks.append({*signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)})


def _unblock() -> None:
    if _masks:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _begin_child() -> None:
    _put_back()
    _unblock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_begin_child)
