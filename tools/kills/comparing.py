"""What two runs left behind, and where it differs."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# What two runs may differ in: how fast they were.
_SPEED = "steps_per_second"


def differences(expected: Path, found: Path) -> list[str]:
    """Returns where the run in `found` is not that in `expected`, in words.

    Both are directories of the trainer, or of a loop that leaves `*.npz`.
    """
    return [
        *_differing("checkpoint", _checkpoints(expected), _checkpoints(found)),
        *_differing("summary", _summaries(expected), _summaries(found)),
        *_differing("file", _files(expected), _files(found)),
    ]


def _differing(kind: str, expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for name in sorted({*expected, *found}):
        if name not in found:
            yield f"{kind} {name}: missing"
        elif name not in expected:
            yield f"{kind} {name}: left over"
        elif expected[name] != found[name]:
            yield f"{kind} {name}: {_short(expected[name])} became {_short(found[name])}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _checkpoints(directory: Path) -> dict[str, Any]:
    """Returns the bits of all variables in all checkpoints, those of the best weights too."""
    import tensorflow as tf

    found = {}
    for index in sorted(directory.rglob("*.index")):
        path = index.with_suffix("")
        start = f"{path.relative_to(directory)}: "
        try:
            reader = tf.train.load_checkpoint(str(path))
            for name in reader.get_variable_to_shape_map():
                if "VARIABLE_VALUE" in name and not name.startswith("save_counter"):
                    value = np.asarray(reader.get_tensor(name))
                    bits = value.tobytes() if value.dtype != object else value.tolist()
                    found[start + name] = (str(value.dtype), bits)
        except tf.errors.OpError as error:
            found[start + str(error)] = None
    return found


def _summaries(directory: Path) -> dict[str, Any]:
    """Returns the bits of all values by step and name; a step that is there twice has two."""
    import tensorflow as tf

    found: dict[str, list[bytes]] = {}
    for path in sorted(directory.rglob("events.out.tfevents.*")):
        for record in tf.compat.v1.io.tf_record_iterator(str(path)):
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.tag != _SPEED:
                    name = f"{path.parent.relative_to(directory)}: step {event.step}, {value.tag}"
                    bits = tf.make_ndarray(value.tensor).tobytes()
                    found.setdefault(name, []).append(bits)
    return found


def _files(directory: Path) -> dict[str, Any]:
    """Returns what other files say, but for times."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{name}: {key}": arrays[key].tobytes() for key in arrays.files}
        elif path.suffix == ".json":
            value = json.loads(path.read_text())
            found[name] = _without_times(value)
        elif path.name == "checkpoint":
            # The times in it are of the files.
            lines = path.read_text().splitlines()
            found[name] = [line for line in lines if "timestamp" not in line]
        elif path.is_file() and not _counted(path):
            found[name] = path.read_bytes()
    return found


def _counted(path: Path) -> bool:
    """Whether a file is compared by what it holds, elsewhere."""
    return path.name.startswith(("ckpt-", "events.out")) or os.stat(path).st_size == 0


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        skipped = ("seconds", "steps_per_second")
        return {key: _without_times(v) for key, v in value.items() if key not in skipped}
    return value
