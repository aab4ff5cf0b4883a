"""An average of the weights of several checkpoints, written as a checkpoint."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from optimization.training import checkpoints
from optimization.training.checkpoint_files import numbered_checkpoints
from optimization.training.checkpoint_writer import CheckpointWriter
from optimization.training.errors import CheckpointError, DamagedError, UnwrittenError, first

_MARK = "average_of"


def average_checkpoints(
    model_dir: str | os.PathLike, last: int = 5, output: str | os.PathLike | None = None
) -> str:
    """Writes the mean of the weights of the last checkpoints of a run, as weights to evaluate.

    Each checkpoint counts as much as any other. What is averaged is the model as it trains, moving
    statistics included, not the averages of an `ema` section; integers are those of the last
    checkpoint. `--mode=eval` and `--mode=export` take the result as `--checkpoint`.

    >>> from optimization.training import run_experiment
    >>> results = run_experiment(get_experiment("tiny"), "train", model_dir, console=quiet)
    >>> os.path.relpath(average_checkpoints(model_dir, last=2), model_dir)
    'average-2/ckpt-12'

    Args:
        model_dir: The directory of the run, or any other with its checkpoints.
        last: How many checkpoints, >= 1.
        output: The directory to write to; None for `average-<last>` in `model_dir`. An average that
            is there is replaced.

    Returns:
        The path of the average: `ckpt-<step>`, of the step of the last checkpoint.

    Raises:
        ValueError: If `last` is no whole number >= 1.
        CheckpointError: If there are fewer checkpoints, if they differ in their variables, or if
            `output` holds other checkpoints, or can't be written to.
        DamagedError: If one is damaged.
    """
    if isinstance(last, bool) or not isinstance(last, int) or last < 1:
        raise ValueError(f"Argument `last` must be an integer >= 1, received: last={last!r}")
    directory = os.fspath(model_dir)
    output = os.path.join(directory, f"average-{last}") if output is None else os.fspath(output)
    found = numbered_checkpoints(directory)
    if len(found) < last:
        names = f"{len(found)}: {', '.join(first(list(found.values())))}" if found else "none"
        there = names if os.path.isdir(directory) else "no such directory"
        advice = "; `trainer.max_to_keep` says how many a run keeps" if found else ""
        raise CheckpointError(
            f"{directory!r} must hold {last} checkpoints to average, there is {there}{advice}"
        )
    _check_output(output)
    steps = list(found)[-last:]
    paths = [os.path.join(directory, found[step]) for step in steps]
    variables = {name: _variable(value) for name, value in _means(paths).items()}
    settings = json.dumps({_MARK: steps})
    writer = CheckpointWriter(output, {"model": variables}, max_to_keep=1, settings=settings)
    try:
        writer.save(steps[-1])
        for other, name in numbered_checkpoints(output).items():
            if other != steps[-1]:
                writer.remove(name)
    except OSError as error:
        raise UnwrittenError(f"{output!r} cannot be written to: {error}") from None
    return os.path.join(output, f"ckpt-{steps[-1]}")


def _check_output(directory: str) -> None:
    """Raises a `CheckpointError` if a directory holds checkpoints that are no averages."""
    for name in numbered_checkpoints(directory).values():
        path = os.path.join(directory, name)
        try:
            is_average = _MARK in checkpoints.saved_settings(path)
        except DamagedError:
            is_average = False
        if not is_average:
            message = f"holds {name}, which is no average: it would be replaced"
            raise CheckpointError(f"{directory!r} {message}; write to another directory")


def _means(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the means of the variables of the model, in their dtypes, by path."""
    sums: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    for path in paths:
        values = checkpoints.model_values(path)
        own = {name: (value.shape, value.dtype) for name, value in values.items()}
        kinds = kinds or own
        if own != kinds:
            names = sorted(n for n in {*own, *kinds} if own.get(n) != kinds.get(n))
            raise CheckpointError(
                f"the checkpoint {path} has other variables than {paths[0]}, by which it can't be "
                f"averaged: {', '.join(first(names, 5))}"
            )
        for name, value in values.items():
            if wide := _wide(value):
                value = value.astype(wide) + sums.get(name, 0.0)
            sums[name] = value
    count = len(paths)
    return {
        name: (value / count).astype(kinds[name][1]) if _wide(value) else value
        for name, value in sums.items()
    }


def _wide(value: np.ndarray) -> str | None:
    """Returns the dtype in which an array is added up; None where it is not, as of integers."""
    # "V" are those of ml_dtypes, such as bfloat16.
    return {"f": "float64", "V": "float64", "c": "complex128"}.get(value.dtype.kind)


def _variable(value: np.ndarray) -> tf.Variable:
    # Not trained: what a checkpoint has as infinite, such as a mask, is so on purpose.
    return tf.Variable(value, trainable=False)
