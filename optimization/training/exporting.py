"""A trained model as files that others load."""

import os
import shutil
import typing

import keras

from optimization.training.errors import TrainingError, first_line
from optimization.training.progress import say

if typing.TYPE_CHECKING:
    from optimization.training.trainer import Trainer


def export_checkpoint(trainer: "Trainer", path: str) -> dict[str, str]:
    """Writes the model of a checkpoint, with the averages where the optimizer averages.

    Args:
        trainer: Of the checkpoint's experiment; `export` in its `model_dir` is written to.
        path: The checkpoint.

    Returns:
        What `write_model` does.

    Raises:
        CheckpointError: If the checkpoint does not fit.
        TrainingError: If the model cannot be written.
    """
    alone = trainer.restore_weights(path)
    say(trainer.console, f"exporting {trainer.evaluated}")
    with trainer.evaluation_weights(alone):
        return write_model(trainer.model, os.path.join(trainer.model_dir, "export"))


def write_model(model: keras.Model, directory: str) -> dict[str, str]:
    """Writes `model.keras` and, where TensorFlow can, `saved_model` to a directory.

    Args:
        model: The model, built, with the weights that are wanted.
        directory: Where to write; made if need be. What an earlier export left is replaced.

    Returns:
        The paths, as `keras` and `saved_model`; in the place of the second, why it is not there.

    Raises:
        TrainingError: If the directory cannot be written to, or the model can't be saved.
    """
    path, saved = os.path.join(directory, "model.keras"), os.path.join(directory, "saved_model")
    try:
        os.makedirs(directory, exist_ok=True)
        shutil.rmtree(saved, ignore_errors=True)
        model.save(path)
    except OSError as error:
        raise TrainingError(f"{directory!r} cannot be written to: {error}") from None
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TrainingError(f"Keras can't save the model: {first_line(error)}") from error
    try:
        model.export(saved, verbose=False)
    except Exception as error:  # Of a model's own code: a graph can't have all of Python.
        shutil.rmtree(saved, ignore_errors=True)
        saved = f"none: {first_line(error)}"
    return {"keras": path, "saved_model": saved}
