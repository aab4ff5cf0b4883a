"""The files of checkpoints: which there are, and which is the latest.

Nothing here needs TensorFlow, so that what is missing is told before it is loaded; only a place
that is not on this machine does.

A checkpoint is an index and its data, in files whose names begin with its own. While it is written
it is in a directory, `ckpt-<step>_temp`; once it is complete that is called `ckpt-<step>_whole`,
until all its files have been moved from there and the list names it. So what these directories hold
is not there yet, and whatever ends the writing, nobody takes a part for a whole.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from optimization.training.errors import CheckpointError, DamagedError, first

Found = TypeVar("Found")

LIST_FILE = "checkpoint"
"""The file in which TensorFlow names the latest checkpoint of a directory."""

WRITING, WRITTEN = "_temp", "_whole"
"""How the directories end in which a checkpoint is before it is in its place."""

FOLLOWED = "learning_rate_state"
"""The variable of the trainer that is the state of a learning rate that follows a metric."""
RATE_VARIABLE = re.compile(r"(^|/)learning_rate$")
"""The paths of variables of the optimizer that are learning rates: those that are constant."""

_LATEST = re.compile(r'^model_checkpoint_path: "(.*)"$', re.MULTILINE)
_PART = re.compile(r"(?P<name>.+)\.(?P<part>index|data-\d+-of-(?P<count>\d+))")


def whole_checkpoints(directory: str) -> list[str]:
    """Returns the names of the checkpoints in `directory` of which every part is there, sorted.

    Those that are numbered come last, in the order of their steps.
    """
    found = _checkpoints(directory)
    whole = (name for name, missing in found.items() if not missing)
    return sorted(whole, key=lambda name: (-1 if (step := step_of(name)) is None else step, name))


def numbered_checkpoints(directory: str) -> dict[int, str]:
    """Returns the names of the whole checkpoints that have a step, by it, in its order."""
    whole = ((step_of(name), name) for name in whole_checkpoints(directory))
    return {step: name for step, name in whole if step is not None}


def files_of(directory: str, name: str) -> list[str]:
    """Returns the names of a checkpoint's files, that of the index first."""
    matches = (_PART.fullmatch(file) for file in _listed(directory))
    return sorted((m[0] for m in matches if m and m["name"] == name), reverse=True)


def broken_checkpoints(directory: str) -> dict[str, str]:
    """Returns what is missing of `ckpt-<step>` that are not whole, in the order of their steps."""
    found = _checkpoints(directory)
    broken = [name for name, missing in found.items() if missing and step_of(name) is not None]
    return {name: found[name] for name in sorted(broken, key=lambda name: step_of(name) or 0)}


def _checkpoints(directory: str) -> dict[str, str]:
    """Returns what is missing of each checkpoint, "" where nothing is."""
    files = set(_listed(directory))
    counts: dict[str, set[int]] = {}
    for file in files:
        if (match := _PART.fullmatch(file)) and match["name"] + WRITTEN not in files:
            counts.setdefault(match["name"], set()).add(int(match["count"] or 1))
    return {name: _missing(name, numbers, files) for name, numbers in counts.items()}


def _missing(name: str, counts: Iterable[int], files: set[str]) -> str:
    """Returns the files that a checkpoint lacks, of which the data are in so many parts."""
    expected = [
        [f"{name}.index", *(f"{name}.data-{i:05}-of-{count:05}" for i in range(count))]
        for count in counts
    ]
    missing = [[file for file in each if file not in files] for each in expected]
    return ", ".join(first(min(missing, key=len), 3))


def _listed(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []


def step_of(path: str) -> int | None:
    """Returns the number at the end of `ckpt-<step>`; None for another name."""
    match = re.fullmatch(r"ckpt-(\d+)", os.path.basename(path))
    return int(match[1]) if match else None


def described(path: str) -> str:
    """Returns the path of a checkpoint, with its step where the name has one."""
    step = step_of(path)
    return path if step is None else f"{path}, of step {step}"


def latest_checkpoint(directory: str, on_damaged: str = "error") -> str | None:
    """Returns the path of the latest checkpoint in `directory`, None if there never was one.

    Args:
        directory: Where it is.
        on_damaged: As `trainer.on_damaged`: with `previous` one that lacks a part is passed over.

    Raises:
        DamagedError: If the latest lacks a part, and there is one before it.
        CheckpointError: If there are files of checkpoints, and none is whole.
    """
    whole, broken = whole_checkpoints(directory), broken_checkpoints(directory)
    if (named := _named(directory)) in whole:
        return os.path.join(directory, named)
    # There is no such file, it is damaged, or what it names is gone.
    newest = whole[-1] if whole and step_of(whole[-1]) is not None else None
    if newest is None:
        _check_fresh(directory)
        return None
    if on_damaged == "error" and (over := _newer(broken, newest)):
        path = os.path.join(directory, over[-1])
        reason = f"the checkpoint {path} is damaged: {broken[over[-1]]} is missing"
        raise instead_of(reason, os.path.join(directory, newest))
    return os.path.join(directory, newest)


def _newer(names: Iterable[str], than: str) -> list[str]:
    return [name for name in names if (step_of(name) or 0) > (step_of(than) or 0)]


def instead_of(reason: str, path: str | None) -> DamagedError:
    """Returns why a checkpoint is not taken, and how the newest whole one, `path`, is."""
    if path is None:
        return DamagedError(f"{reason}; no other checkpoint there is whole")
    return DamagedError(
        f"{reason}; the newest whole one is {described(path)}: set trainer.on_damaged=previous to "
        "take that",
        f"{reason}; the newest whole one is {described(path)}: name that to take it",
    )


def _named(directory: str) -> str:
    """Returns the checkpoint that the list names; "" for none."""
    record = os.path.join(directory, LIST_FILE)
    if not os.path.isfile(record):
        return ""
    with open(record, encoding="utf-8", errors="replace") as file:
        named = _LATEST.search(file.read())
    return named[1] if named else ""


def _check_fresh(directory: str) -> None:
    """Raises a `CheckpointError` if there are files of checkpoints, with their names."""
    files = _listed(directory)
    left = [
        file
        for file in sorted(files)
        if (file == LIST_FILE or file.startswith("ckpt-"))
        and os.path.isfile(os.path.join(directory, file))
        and file.partition(".")[0] + WRITTEN not in files
    ]
    if left:
        raise CheckpointError(
            f"{directory!r} holds files of checkpoints, but no checkpoint that is whole: "
            f"{', '.join(first(left, 5))}. Bring back what is missing, or keep them elsewhere and "
            "start anew"
        )


def doubts_about(path: str) -> str:
    """Returns why a checkpoint was the latest of its directory in spite of signs; "" for none."""
    directory = os.path.dirname(path)
    found = latest_checkpoint(directory, "previous")
    named, record = _named(directory), os.path.join(directory, LIST_FILE)
    if found is None or os.path.basename(found) == named:
        return ""
    broken = broken_checkpoints(directory)
    over = [f"{name} lacks {broken[name]}" for name in _newer(broken, found)]
    if named and named not in broken:
        over.append(f"{record} names {named}, which is not there")
    elif not named:
        kind = "names no checkpoint" if os.path.exists(record) else "is missing"
        over.append(f"{record}, the list of checkpoints, {kind}")
    return f"{'; '.join(over)}: the newest whole checkpoint is taken, {described(found)}"


def new_checkpoints(directory: str, timeout: float | None) -> Iterator[str]:
    """Yields the latest checkpoint, and then each new one, until none comes for `timeout` s."""
    last: str | None = None

    def new() -> str | None:
        path = latest_checkpoint(directory, "previous")
        return None if path == last else path

    while last := awaited(new, timeout):
        yield last


def awaited(look: Callable[[], Found], timeout: float | None) -> Found | None:
    """Looks each second until something is found; returns it, or None if nothing is in `timeout` s.

    None for `timeout` is no end.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while not (found := look()):
        if end is not None and time.monotonic() >= end:
            return None
        time.sleep(1)
    return found


def find_checkpoint(path: str) -> str:
    """Returns the checkpoint at `path`: its name, one of its files, or the directory it is in.

    Raises:
        CheckpointError: If there is none.
    """
    if "://" in path:
        import tensorflow as tf

        found = tf.train.latest_checkpoint(path) or path
        if not tf.io.gfile.exists(f"{found}.index"):
            raise CheckpointError(f"there is no checkpoint at {path!r}")
        return found
    try:
        found = latest_checkpoint(path)
    except DamagedError as error:
        raise DamagedError(error.by_name) from None
    if found is not None:
        return found
    directory, name = os.path.split(path)
    match = _PART.fullmatch(name)
    whole = whole_checkpoints(directory or ".")
    for candidate in (name, match["name"] if match else name):
        if candidate in whole:
            return os.path.join(directory, candidate)
    message = f"there is no checkpoint at {path!r}"
    if os.path.isfile(path) and not match:
        message += ", which is a file of another kind"
    elif whole:
        more = f" and {len(whole) - 3} more" if len(whole) > 3 else ""
        message += f"; in that directory there are {', '.join(reversed(whole[-3:]))}{more}"
    raise CheckpointError(message)
