"""Signals, without a training; in processes that are forked where they end one."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from optimization.training.signals import Stopped, current, stopping

NAMES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _as_it_was():
    before = {number: signal.getsignal(number) for number in NAMES}
    yield
    assert {number: signal.getsignal(number) for number in NAMES} == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", NAMES)
def test_a_signal_ends_what_runs_and_is_told(number, capsys):
    after = []

    def run():
        with stopping() as stop:
            stop.told = "saved at step 3"
            send(number)
            after.append("went on")

    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Stopped) as error:
        run()
    assert not after
    assert number == signal.SIGINT or error.value.code == NAMES[number]
    name = signal.Signals(number).name
    assert capsys.readouterr().err == f"stopped by {name}: saved at step 3\n"


def test_a_door_gets_the_status_and_no_error():
    with stopping(door=True) as stop, stopping() as inner:  # has no end of its own
        assert inner is stop
        send()
    assert (stop.signum, stop.status) == (signal.SIGTERM, 143)


def test_a_section_waits_for_its_end_or_asks():
    done, told, heard = [], [], threading.Event()

    def listener(number):
        told.append(number)
        if number:
            heard.set()

    with stopping(door=True) as stop, stop.section(raises=False):
        with stop.telling(listener):
            send()
            send()  # at once: as `timeout` does
            assert heard.wait(60)
        done.append("whole")
        with pytest.raises(Stopped), stop.section(raises=True):
            done.append("never")
        with pytest.raises(Stopped):
            stop.check()
    assert done == ["whole"]
    assert told == [0, signal.SIGTERM]


def test_another_error_is_told_in_its_place():
    def run():
        with stopping() as stop, stop.section(raises=False):
            send()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run()


def test_handlers_of_others_are_left_alone():
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        with stopping() as stop:
            send()
        assert came == [1]
        assert stop.signum is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_taken():
    seen = []

    def run():
        with stopping() as stop:
            seen.append((stop.before, current() is stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [({}, False)]


# Each case is a process that a signal ends while Python runs no handler.
SCRIPT = """
import hashlib, os, signal, sys, threading, time
from optimization.training.signals import stopping

def busy():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

def nothing_is_lost():
    with stopping(door=True) as stop, stop.section(raises=False), stop.waiting(leaves=True):
        stop.leaving = lambda: print("left", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        busy()

def the_second_signal():
    heard = threading.Event()
    with stopping(door=True) as stop, stop.section(raises=False):
        stop.leaving = lambda: print("left", flush=True)
        with stop.telling(lambda number: heard.set() if number else None):
            os.kill(os.getpid(), signal.SIGTERM)
            heard.wait()
            threading.Thread(target=send_again).start()
            busy()

def send_again():
    while True:  # those that come with the first are the same
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

def a_child_is_no_run():
    with stopping(door=True) as stop:
        if not (child := os.fork()):
            signal.pause()
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        print("child", -os.waitstatus_to_exitcode(status), stop.signum, flush=True)
    sys.exit(0)

for case in (nothing_is_lost, the_second_signal, a_child_is_no_run):
    if not (child := os.fork()):
        case()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    print(case.__name__, os.waitstatus_to_exitcode(status), flush=True)
    print("-", file=sys.stderr, flush=True)
"""


def test_a_process_is_left_where_python_runs_no_handler():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        *("left", "nothing_is_lost 130"),
        *("left", "the_second_signal 143"),
        *("child 15 None", "a_child_is_no_run 0"),
    ]
    first, second, third = done.stderr.split("-\n")[:3]
    assert first == (
        "SIGINT: the run ends after this step; a second signal ends it at once\n"
        "stopped by SIGINT: there was nothing to save\n"
    )
    assert second == (
        "SIGTERM: the run ends after this step; a second signal ends it at once\n"
        "left at once by SIGTERM, the second signal: what was saved stays as it is\n"
    )
    assert third == ""
