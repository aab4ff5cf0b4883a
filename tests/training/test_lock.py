import errno
import json
import os
import re
import subprocess
import sys

import pytest

from optimization.training import lock
from optimization.training.errors import LockedError
from optimization.training.lock import LOCK_FILE, locked


def test_a_directory_has_one_holder_at_a_time(tmp_path):
    directory = str(tmp_path / "made")
    with locked(directory, "trains", pytest.fail):
        for _ in range(2):
            with pytest.raises(LockedError) as error, locked(directory, "evaluates", pytest.fail):
                pytest.fail("it was given twice")
            assert re.fullmatch(
                rf"'{directory}' is in use: this process trains there since "
                r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*; wait for it, end it, or take another "
                "--model_dir",
                str(error.value),
            )
        with locked(str(tmp_path), "trains", pytest.fail):  # another one
            pass
    with locked(directory, "trains", pytest.fail):
        pass
    assert (tmp_path / "made" / LOCK_FILE).read_text() == ""


def test_an_error_frees_it(tmp_path):
    with pytest.raises(KeyError), locked(str(tmp_path), "trains", pytest.fail):
        raise KeyError
    with locked(str(tmp_path), "trains", pytest.fail):
        pass


HOLDER = """
import os, signal, sys
from optimization.training.lock import locked
with locked(sys.argv[1], "trains", print):
    if not os.fork():
        print(os.getpid(), flush=True)
    signal.pause()
"""


def test_the_error_names_the_process_and_a_crash_frees_it(tmp_path):
    """A process that it has forked, and that lives on, holds nothing."""
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as holder:
        child = int(holder.stdout.readline())
        told = f"process {holder.pid} on .* trains there since"
        with pytest.raises(LockedError, match=told), locked(str(tmp_path), "trains", pytest.fail):
            pass
        holder.kill()
        holder.wait()
        with locked(str(tmp_path), "trains", pytest.fail):
            pass
        os.kill(child, 9)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"pid": 1})])
def test_a_holder_that_does_not_say_who_it_is(tmp_path, text):
    with locked(str(tmp_path), "trains", pytest.fail):
        (tmp_path / LOCK_FILE).write_text(text)
        told = "another process has just begun there"
        with pytest.raises(LockedError, match=told), locked(str(tmp_path), "trains", pytest.fail):
            pass


def test_a_filesystem_without_locks_is_told_and_used(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    told = []
    with locked(str(tmp_path), "trains", told.append), locked(str(tmp_path), "x", told.append):
        pass
    assert told[0] == told[1]
    assert told[0] == (
        f"warning: {str(tmp_path)!r} can't be locked (No locks available): no other process may "
        "use it"
    )
