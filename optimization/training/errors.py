"""Mistakes of a user that only a run brings to light."""

import re
from collections.abc import Collection, Sequence
from typing import Any

# What TensorFlow puts before the message of an error in a graph: where its operation was made.
_MADE_AT = re.compile(r"^Graph execution error:\s.*^  File \"[^\n]*\n", re.MULTILINE | re.DOTALL)


class TrainingError(ValueError):
    """Something that the user can put right, told by the message alone.

    The command line prints the message without a traceback.
    """


class CheckpointError(TrainingError):
    """A checkpoint that is not there, or does not fit the model and the optimizer."""


class MisfitError(CheckpointError):
    """A checkpoint of which a section, such as "model", has other variables than there are."""

    def __init__(self, message: str, sections: Collection[str] = ()):
        self.sections = sections
        super().__init__(message)


class DamagedError(CheckpointError):
    """A checkpoint of which a part is missing, cannot be read, or holds what is not finite.

    Attributes:
        by_name: The message where not a trainer looks for the latest, but a user names a place.
    """

    def __init__(self, message: str, by_name: str = ""):
        self.by_name = by_name or message
        super().__init__(message)


class UnwrittenError(CheckpointError):
    """A checkpoint that cannot be written."""


class NonFiniteWeightsError(TrainingError):
    """Weights, moments or averages that are infinite or not a number, and are not saved."""


class NonFiniteLossError(TrainingError):
    """A loss that became infinite or not a number."""


class NonFiniteGradientsError(TrainingError):
    """Gradients that are infinite or not a number, where the config lets that end the run."""


class LockedError(TrainingError):
    """A directory in which another process trains or evaluates; the message says which one."""


class WorkerError(TrainingError):
    """Another of several workers ended early; the message has its name and the reason."""


def first_line(error: BaseException) -> str:
    """Returns the kind of an error and the first line of its message."""
    text = _MADE_AT.sub("", str(error)).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def reason_of(error: BaseException) -> str:
    """Returns the first line of an error's message, without the operation that TensorFlow names."""
    line = str(error).strip().partition("\n")[0]
    return re.sub(r"^\{\{.*?\}\} *| *\[Op:\w+\].*$", "", line)


def first(things: Sequence[Any], most: int = 10) -> list[str]:
    """Returns the first few of some things as text, and "and N more" in the place of the others."""
    more = [f"and {len(things) - most} more"] if len(things) > most else []
    return [*map(str, things[:most]), *more]
