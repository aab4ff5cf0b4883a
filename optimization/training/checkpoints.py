"""Checkpoints in which every variable is found by its path, never by its position."""

import contextlib
import os
import re
import tempfile
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from optimization.keras.paths import saved_names
from optimization.keras.state import by_unique_name
from optimization.training.checkpoint_files import (
    FOLLOWED,
    RATE_VARIABLE,
    find_checkpoint,
    instead_of,
    numbered_checkpoints,
    step_of,
)
from optimization.training.errors import (
    CheckpointError,
    DamagedError,
    MisfitError,
    first,
    reason_of,
)
from optimization.training.finite import Sections, infinite_on_purpose, must_be_finite

STOPPING, SKIPS, EVALUATION = "early_stopping_state", "skipped_updates", "evaluation_due"
MEANS = "means_state"
_FREE = (STOPPING, SKIPS, EVALUATION, MEANS, FOLLOWED)
"""Variables of the trainer that a checkpoint may lack, or have for nothing: one of an earlier
version lacks them, and early stopping, or a rate that follows a metric, may be set, or left out,
when a run goes on. So may a rate that is constant."""

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SETTINGS = "settings/.ATTRIBUTES/py_state"
# What TensorFlow writes for "/" and "." in the names of dictionary entries.
_ESCAPED = {".S": "/", "..": "."}


def by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Returns TensorFlow's variables by path; a path used again gets "#2", "#3" and so on."""
    return by_unique_name((variable.path, variable.value) for variable in variables)


def optimizer_variables(optimizer: keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Returns every variable of the optimizer, and of those it wraps, by path."""
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:  # a LossScaleOptimizer
        theirs = {id(variable) for variable in inner.variables}
        own = by_path(v for v in optimizer.variables if id(v) not in theirs)
        return own | {f"inner/{k}": v for k, v in optimizer_variables(inner).items()}
    find = getattr(optimizer, "variables_by_path", None)
    if find is None:
        return by_path(optimizer.variables)
    return {path: variable.value for path, variable in find().items()}


def load_model(model: keras.Model, path: str) -> None:
    """Sets the variables of `model` to those in a checkpoint, or in the latest of a directory.

    Raises:
        CheckpointError: If there is none, or a variable is missing or of another shape.
        DamagedError: If it is damaged; nothing was changed then.
    """
    load(find_checkpoint(path), {"model": by_path(model.variables)}, partly=True)


def load(path: str, sections: Sections, partly: bool = False, checked: bool = False) -> None:
    """Sets variables to those in the checkpoint `path`, to all of them or only `partly`.

    Args:
        path: The checkpoint.
        sections: The variables.
        partly: Whether the checkpoint may hold more.
        checked: Whether `damage` has found none already.

    Raises:
        MisfitError: If the checkpoint lacks a variable, has one too many, or has one of another
            shape or dtype; nothing was changed then.
        DamagedError: If it is damaged; nothing was changed then.
    """
    stored, sections = _in_both(stored_variables(path), sections)
    sections = _as_saved(stored, sections)
    _compare(path, stored, sections, partly)
    if not checked and (found := damage(path, infinite_on_purpose(sections), tuple(sections))):
        raise DamagedError(found)
    with _reader_of(path) as reader:
        for section, variables in sections.items():
            for name, variable in variables.items():
                variable.assign(reader.get_tensor(stored[f"{section}: {name}"].key))


def damage(path: str, exempt: Collection[str] = (), sections: Collection[str] = ()) -> str | None:
    """Reads a checkpoint; returns why nothing can go on from it, None if something can.

    What has changed on the disk, TensorFlow's checksums tell.

    Args:
        path: The checkpoint.
        exempt: What need not be finite, as "section: path".
        sections: What is looked at; none for all.
    """
    infinite = []
    try:
        with _reader_of(path) as reader:
            for key in reader.get_variable_to_shape_map():
                name = _name_of(key)
                if sections and name.partition(":")[0] not in sections:
                    continue
                value = np.asarray(reader.get_tensor(key))
                if must_be_finite(name) and name not in exempt and not _is_finite(value):
                    infinite.append(name)
    except DamagedError as error:
        return str(error)
    if infinite:
        names = ", ".join(first(sorted(infinite), 3))
        return f"the checkpoint {path} holds values that are not finite: {names}"
    return None


def _is_finite(value: np.ndarray) -> bool:
    if value.dtype.kind == "V":  # of ml_dtypes, such as bfloat16
        value = value.astype("float32")
    return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())


def newest_sound(directory: str, before: str = "", exempt: Collection[str] = ()) -> str | None:
    """Returns the newest checkpoint without damage, or the newest of those `before` another."""
    limit = step_of(before)
    for step, name in reversed(numbered_checkpoints(directory).items()):
        path = os.path.join(directory, name)
        if (limit is None or step < limit) and damage(path, exempt) is None:
            return path
    return None


def sound(path: str, on_damaged: str, exempt: Collection[str] = ()) -> tuple[str, str]:
    """Returns a checkpoint that is not damaged, and why it is not `path`, "" if it is.

    Raises:
        DamagedError: If `path` is damaged, unless `on_damaged` is "previous" and there is another.
    """
    found = damage(path, exempt)
    if found is None:
        return path, ""
    previous = newest_sound(os.path.dirname(path), path, exempt)
    if previous is None or on_damaged != "previous":
        raise instead_of(found, previous)
    return previous, f"{found}: the newest one before it that is whole is taken, {previous}"


def _in_both(
    stored: Mapping[str, "_Stored"], sections: Sections
) -> tuple[dict[str, "_Stored"], Sections]:
    """Leaves out what only one of two has and need not: see `_FREE`."""

    def is_optional(section: str, name: str) -> bool:
        if section == "optimizer":
            return RATE_VARIABLE.search(name) is not None
        return section == "trainer" and name in _FREE

    own = {f"{section}: {name}" for section, found in sections.items() for name in found}
    kept = {n: k for n, k in stored.items() if n in own or not is_optional(*n.split(": ", 1))}
    return kept, {
        section: {
            name: variable
            for name, variable in found.items()
            if f"{section}: {name}" in stored or not is_optional(section, name)
        }
        for section, found in sections.items()
    }


def saved_settings(path: str) -> str:
    """Returns the text that was saved as settings with the checkpoint `path`; "" if none was."""
    with _reader_of(path) as reader:
        if not reader.has_tensor(_SETTINGS):
            return ""
        return reader.get_tensor(_SETTINGS).decode()


def model_values(path: str) -> dict[str, np.ndarray]:
    """Returns the variables of the model in a checkpoint, by path.

    Raises:
        DamagedError: If it can't be read.
    """
    start, stored = "model: ", stored_variables(path)
    with _reader_of(path) as reader:
        return {
            name.removeprefix(start): np.asarray(reader.get_tensor(found.key))
            for name, found in stored.items()
            if name.startswith(start)
        }


def holds_model_only(path: str) -> bool:
    """Whether the checkpoint `path` is of weights alone, as that of the best evaluation is."""
    return all(name.startswith("model: ") for name in stored_variables(path))


@contextlib.contextmanager
def _reader_of(path: str) -> Iterator[Any]:
    """Yields TensorFlow's reader of a checkpoint.

    Raises:
        DamagedError: For what it raises, then or later.
    """
    try:
        with _without_patterns(path) as same:
            yield tf.train.load_checkpoint(same)
    except (tf.errors.OpError, IndexError, ValueError) as error:  # as the damage happens to be
        forbidden = isinstance(error, tf.errors.PermissionDeniedError)
        kind = CheckpointError if forbidden else DamagedError
        raise kind(f"the checkpoint {path} cannot be read: {reason_of(error)}") from error


@contextlib.contextmanager
def _without_patterns(path: str) -> Iterator[str]:
    """Yields a path to the files of a checkpoint that means the same as a pattern.

    For TensorFlow the paths that it reads are patterns, which `run[lr=0.1]/ckpt-1` does not match.
    """
    if "://" in path or not re.search(r"[][*?\\]", path):
        yield path
        return
    directory, name = os.path.split(os.path.abspath(path))
    with tempfile.TemporaryDirectory() as place:
        for file in os.listdir(directory):
            if file.startswith(f"{name}."):
                link = os.path.join(place, "checkpoint" + file.removeprefix(name))
                os.symlink(os.path.join(directory, file), link)
        yield os.path.join(place, "checkpoint")


class _Kind(typing.NamedTuple):
    """What two variables must have in common."""

    shape: list[int]
    dtype: str


class _Stored(typing.NamedTuple):
    """Where a checkpoint has a variable, and what it is."""

    key: str
    kind: _Kind


def _name_of(key: str) -> str:
    """Returns what a checkpoint holds as "section: variable path"; "" for what is no variable."""
    if not key.endswith(_VALUE) or key.startswith("save_counter"):
        return ""
    section, _, name = key.removesuffix(_VALUE).partition("/")
    name = re.sub(r"\.[.S]", lambda match: _ESCAPED[match[0]], name)
    return f"{section}: {name}"


def stored_variables(path: str) -> dict[str, _Stored]:
    """Returns the variables that a checkpoint holds, by "section: variable path"."""
    with _reader_of(path) as reader:
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    return {
        name: _Stored(key, _Kind(shape, dtypes[key].name))
        for key, shape in shapes.items()
        if (name := _name_of(key))
    }


def _as_saved(stored: Iterable[str], sections: Sections) -> dict[str, dict[str, tf.Variable]]:
    """Returns the variables by the paths that they had, where Keras has numbered layers anew."""
    theirs = sections.get("optimizer", ())
    own = [name for name in theirs if not name.startswith("inner/")]  # of a loss scale
    paths = [*sections["model"], *(own if len(own) < len(theirs) else ())]
    result = {}
    for section, variables in sections.items():
        start = f"{section}: "
        saved = [name.removeprefix(start) for name in stored if name.startswith(start)]
        names = saved_names(variables, saved, paths)
        result[section] = {names[name]: variable for name, variable in variables.items()}
    return result


def _compare(path: str, stored: Mapping[str, _Stored], sections: Sections, partly: bool) -> None:
    """Raises a `MisfitError` if the variables are not those of the checkpoint."""
    wanted = {
        f"{section}: {name}": _Kind(variable.shape.as_list(), variable.dtype.name)
        for section, variables in sections.items()
        for name, variable in variables.items()
    }
    listings = {
        "missing from the checkpoint": [name for name in wanted if name not in stored],
        "left over in the checkpoint": [n for n in stored if n not in wanted and not partly],
    }
    for position, field in enumerate(_Kind._fields):
        listings[f"of another {field}"] = [
            f"{name}: {stored[name].kind[position]} in the checkpoint, {kind[position]} here"
            for name, kind in wanted.items()
            if name in stored and stored[name].kind[position] != kind[position]
        ]
    lines = [f"the checkpoint {path} does not fit the model and the optimizer"]
    for title, names in listings.items():
        if names:
            lines += [f"  {title} ({len(names)}):", *(f"    {n}" for n in first(sorted(names)))]
    wrong = {name.partition(":")[0] for names in listings.values() for name in names}
    if wrong:
        raise MisfitError("\n".join(lines), wrong)
