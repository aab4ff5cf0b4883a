"""Writes checkpoints, so that whatever ends the writing, there is a good one to go on from."""

import contextlib
import os
import re
import shutil

import tensorflow as tf

from optimization.training.checkpoint_files import (
    LIST_FILE,
    WRITING,
    WRITTEN,
    broken_checkpoints,
    files_of,
    latest_checkpoint,
    numbered_checkpoints,
    step_of,
)
from optimization.training.checkpoints import stored_variables
from optimization.training.errors import (
    DamagedError,
    NonFiniteWeightsError,
    UnwrittenError,
    first,
    reason_of,
)
from optimization.training.finite import HELP, Sections, infinite_on_purpose, nonfinite
from optimization.training.whole_files import write_whole

DAMAGED = "damaged"
"""The directory in which damaged checkpoints are kept once others take their names."""


class CheckpointWriter:
    """Writes `ckpt-<step>` to a directory, and removes older ones when it is complete.

    One process at a time writes to a directory.

    Args:
        directory: Where; made when the first is written.
        sections: What is saved.
        max_to_keep: How many are kept.
        settings: What `saved_settings` returns.
    """

    def __init__(
        self, directory: str, sections: Sections, max_to_keep: int = 5, settings: str = ""
    ):
        self.directory, self._sections, self._most = directory, sections, max_to_keep
        self._text, saved = _Text(settings), {k: dict(v) for k, v in sections.items()}
        self._saved = tf.train.Checkpoint(**saved, **({"settings": self._text} if settings else {}))
        self.infinite_on_purpose = infinite_on_purpose(sections)

    def check(self, step: int) -> None:
        """Raises a `NonFiniteWeightsError` if what would be saved is not finite."""
        if names := nonfinite(self._sections, self.infinite_on_purpose):
            raise NonFiniteWeightsError(
                f"after {step} steps these are not finite, and not saved: "
                f"{', '.join(first(names, 5))}; {HELP}"
            )

    def save(self, step: int, settings: str | None = None) -> None:
        """Writes `ckpt-<step>`; nothing is removed before all of it is there.

        Args:
            step: The training step.
            settings: What `saved_settings` returns, if that is not as it was.

        Raises:
            NonFiniteWeightsError: If something is not finite that must be.
            UnwrittenError: If it cannot be written, as where the disk is full.
        """
        self.check(step)
        self._text.content = self._text.content if settings is None else settings
        name = f"ckpt-{step}"
        place = os.path.join(self.directory, name)
        try:
            self._write(place)
            self._publish(name)
            for other in self._older(step)[0]:
                self.remove(other)
        except (tf.errors.OpError, OSError, DamagedError) as error:
            shutil.rmtree(place + WRITING, ignore_errors=True)
            message = f"the checkpoint {place} cannot be written: {reason_of(error)}"
            raise UnwrittenError(message) from error

    def _write(self, place: str) -> None:
        """Writes a checkpoint to a directory of its own."""
        writing, name = place + WRITING, os.path.basename(place)
        for leftover in (writing, place + WRITTEN):
            shutil.rmtree(leftover, ignore_errors=True)
        os.makedirs(writing)
        self._saved.write(os.path.join(writing, name))
        self._check_written(os.path.join(writing, name))
        for file in os.listdir(writing):
            _sync(os.path.join(writing, file))
        os.rename(writing, place + WRITTEN)

    def _check_written(self, path: str) -> None:
        """Raises an `OSError` if files lack something of what they have to hold."""
        stored, size = stored_variables(path), 0
        for section, variables in self._sections.items():
            for name, variable in variables.items():
                if f"{section}: {name}" not in stored:
                    raise OSError(f"{section}: {name} was not written")
                if variable.dtype != tf.string:
                    size += variable.shape.num_elements() * variable.dtype.size
        directory, name = os.path.split(path)
        data = files_of(directory, name)[1:]
        written = sum(os.path.getsize(os.path.join(directory, file)) for file in data)
        if written < size:
            raise OSError(f"only {written} of {size} bytes were written")

    def _publish(self, name: str) -> None:
        """Puts the files of a complete checkpoint in their place, and its name in the list."""
        written = os.path.join(self.directory, name + WRITTEN)
        # The index last, as it is what makes the others a checkpoint. That of one before must not
        # stand beside the data of this one.
        files = sorted(os.listdir(written), key=lambda file: file.endswith(".index"))
        if files:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.directory, f"{name}.index"))
        for file in files:
            os.replace(os.path.join(written, file), os.path.join(self.directory, file))
        self._list(name)
        os.rmdir(written)
        with contextlib.suppress(OSError):  # Not every file system can.
            _sync(self.directory)

    def _list(self, latest: str) -> None:
        """Writes the list as TensorFlow does, so that its own tools find the checkpoints too."""
        _, kept = self._older(step_of(latest) or 0)
        lines = [f'model_checkpoint_path: "{latest}"']
        for name in [*kept, latest]:
            lines.append(f'all_model_checkpoint_paths: "{name}"')
            lines.append(f"all_model_checkpoint_timestamps: {self._time_of(name)!r}")
        path = os.path.join(self.directory, LIST_FILE)
        write_whole(path, "\n".join([*lines, ""]))

    def _older(self, step: int) -> tuple[list[str], list[str]]:
        """Returns the checkpoints before a step: those that go, and those that stay beside it."""
        names = [n for s, n in numbered_checkpoints(self.directory).items() if s < step]
        gone = max(0, len(names) - self._most + 1)
        return names[:gone], names[gone:]

    def _time_of(self, name: str) -> float:
        return os.path.getmtime(os.path.join(self.directory, f"{name}.index"))

    def remove(self, name: str) -> None:
        """Removes a checkpoint, its index first: whatever is left then is no checkpoint."""
        for file in files_of(self.directory, name):
            os.remove(os.path.join(self.directory, file))

    # What a training does first in its directory

    def recover(self) -> None:
        """Ends what a process before, which was killed, was about to do.

        What was complete takes its place, what was not is removed, and so is what is left of a
        checkpoint that was being removed.
        """
        for file in os.listdir(self.directory) if os.path.isdir(self.directory) else ():
            match = re.fullmatch(rf"(ckpt-\d+)({WRITING}|{WRITTEN})", file)
            if match and match[2] == WRITTEN:
                self._publish(match[1])
            elif match:
                shutil.rmtree(os.path.join(self.directory, file))
        newest = max(numbered_checkpoints(self.directory), default=0)
        for name in broken_checkpoints(self.directory):
            if (step_of(name) or 0) < newest:
                self.remove(name)

    def set_aside(self, taken: str) -> None:
        """Moves to `damaged` what is newer than the checkpoint `taken` and was not, for damage."""
        step = step_of(taken)
        if step is None:
            return
        names = list(broken_checkpoints(self.directory))
        if latest_checkpoint(self.directory, "previous") != taken:
            names += numbered_checkpoints(self.directory).values()
        newer = [name for name in names if (step_of(name) or 0) > step]
        for name in newer:
            for file in files_of(self.directory, name):
                _move(os.path.join(self.directory, file), os.path.join(self.directory, DAMAGED))
        if newer:
            self._list(os.path.basename(taken))


class _Text(tf.train.experimental.PythonState):
    """A text beside the variables."""

    def __init__(self, content: str):
        self.content = content

    def serialize(self) -> str:
        return self.content

    def deserialize(self, string_value: bytes) -> None:
        del string_value


def _sync(path: str) -> None:
    """Has the system write to the disk what it still holds of a file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(path: str, directory: str) -> None:
    """Moves a file to a directory, under a name that is free there."""
    os.makedirs(directory, exist_ok=True)
    target = os.path.join(directory, os.path.basename(path))
    number = 1
    while os.path.exists(target if number == 1 else f"{target}.{number}"):
        number += 1
    os.rename(path, target if number == 1 else f"{target}.{number}")
