"""The files of checkpoints: which there are, and which is the latest.

Nothing here needs TensorFlow, so that what is missing is told before it is loaded; only a place
that is not on this machine does.
"""

import os
import re

from optimization.training.errors import CheckpointError

# The file in which TensorFlow names the latest checkpoint, and the files of one checkpoint.
_LATEST = re.compile(r'^model_checkpoint_path: "(.*)"$', re.MULTILINE)
_PART = re.compile(r"(?P<name>.+)\.(?P<part>index|data-\d+-of-\d+)")


def whole_checkpoints(directory: str) -> list[str]:
    """Returns the names of the checkpoints in `directory` of which every part is there, sorted.

    Those that are numbered come last, in the order of their steps.
    """
    parts: dict[str, set[str]] = {}
    for file in os.listdir(directory) if os.path.isdir(directory) else ():
        if match := _PART.fullmatch(file):
            parts.setdefault(match["name"], set()).add(match["part"].partition("-")[0])
    whole = (name for name, found in parts.items() if found == {"index", "data"})
    return sorted(whole, key=lambda name: (-1 if (step := step_of(name)) is None else step, name))


def step_of(path: str) -> int | None:
    """Returns the number at the end of `ckpt-<step>`; None for another name."""
    match = re.fullmatch(r"ckpt-(\d+)", os.path.basename(path))
    return int(match[1]) if match else None


def latest_checkpoint(directory: str) -> str | None:
    """Returns the path of the latest checkpoint in `directory`, None if there never was one.

    Raises:
        CheckpointError: If there are files of checkpoints, and none is whole.
    """
    whole = whole_checkpoints(directory)
    record = os.path.join(directory, "checkpoint")
    if os.path.isfile(record):
        with open(record, encoding="utf-8", errors="replace") as file:
            named = _LATEST.search(file.read())
        if named and named[1] in whole:
            return os.path.join(directory, named[1])
    # There is no such file, it is damaged, or what it names is gone.
    if whole and step_of(whole[-1]) is not None:
        return os.path.join(directory, whole[-1])
    files = os.listdir(directory) if os.path.isdir(directory) else ()
    if any(re.fullmatch(r"checkpoint|ckpt-\d+\.index", name) for name in files):
        raise CheckpointError(
            f"{directory!r} holds files of checkpoints, but no checkpoint that is whole; remove "
            "them to start anew"
        )
    return None


def find_checkpoint(path: str) -> str:
    """Returns the checkpoint at `path`: its name, one of its files, or the directory it is in.

    Raises:
        CheckpointError: If there is none.
    """
    if "://" in path:
        import tensorflow as tf

        found = tf.train.latest_checkpoint(path) or path
        if not tf.io.gfile.glob(f"{found}.index"):
            raise CheckpointError(f"there is no checkpoint at {path!r}")
        return found
    found = latest_checkpoint(path)
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
