"""The checkpoints of one run: what it saves, and what it goes on from."""

import functools
import os
import typing
from collections.abc import Callable
from typing import Any

from optimization.configs.experiment_config import ExperimentConfig
from optimization.training import changes, checkpoints
from optimization.training.checkpoint_files import described, doubts_about, latest_checkpoint
from optimization.training.checkpoint_writer import CheckpointWriter
from optimization.training.errors import (
    MisfitError,
    NonFiniteGradientsError,
    NonFiniteLossError,
    NonFiniteWeightsError,
    UnwrittenError,
)
from optimization.training.finite import Sections

if typing.TYPE_CHECKING:
    from optimization.training.trainer import Trainer

_ENDING = (NonFiniteLossError, NonFiniteGradientsError, NonFiniteWeightsError, UnwrittenError)


class RunCheckpoints:
    """Saves and restores the variables of a trainer in its directory.

    Args:
        directory: The directory of the run.
        config: Its settings, which are saved too.
        sections: The variables.
        say: Takes what is told of the files.
        restored: Called when the variables have been set.
    """

    def __init__(
        self,
        directory: str,
        config: ExperimentConfig,
        sections: Sections,
        say: Callable[[str], None],
        restored: Callable[[], None],
    ):
        self._directory, self._config, self._sections = directory, config, sections
        self._say, self._restored = say, restored
        self.writer = CheckpointWriter(
            directory, sections, config.trainer.max_to_keep, settings=config.to_yaml()
        )

    def save(self, step: int, writes: bool) -> None:
        """Writes a checkpoint, or only checks what one of the other workers writes.

        All call it, so that all end if something is not finite.
        """
        if writes:
            self.writer.save(step)
        else:
            self.writer.check(step)

    def latest(self) -> str | None:
        """Returns the path of the latest checkpoint; None if there is none."""
        return latest_checkpoint(self._directory, self._config.trainer.on_damaged)

    def last_good(self) -> str:
        """Returns what a run that ended can go on from, in words."""
        path = checkpoints.newest_sound(self._directory, exempt=self.writer.infinite_on_purpose)
        if path is None:
            return f"There is no good checkpoint in {self._directory}"
        return f"The last good checkpoint is {described(path)}"

    def sound(self, path: str | None = None) -> str | None:
        """Returns `path`, or the latest, all of which can be read; None if there is none.

        With `on_damaged: previous` it is one before if the latest is damaged. That is told.

        Raises:
            DamagedError: If it is damaged, with the newest that is not.
        """
        latest = self.latest()
        path = path or latest
        if path is None:
            return None
        on_damaged = self._config.trainer.on_damaged if path == latest else "error"
        exempt = self.writer.infinite_on_purpose
        found, damage = checkpoints.sound(path, on_damaged, exempt)
        for text in (doubts_about(path), damage):
            if text:
                self._say(f"warning: {text}")
        return found

    def restore(self, path: str | None = None) -> str | None:
        """Restores what `sound` returns, and returns it; see `Trainer.restore`."""
        path = self.sound(path)
        if path is not None:
            self.load(path)
        return path

    def load(self, path: str) -> None:
        """Restores a checkpoint that is sound.

        Raises:
            CheckpointError: If it is of another experiment or optimizer, or does not fit.
        """
        found = changes.since(path, self._config)
        changes.check_identity(path, found, chosen=self._config.trainer.resume is not None)
        try:
            checkpoints.load(path, self._sections, checked=True)
        except MisfitError as error:
            raise changes.explained(path, found, error) from error
        self._restored()

    def start(self, writes: bool) -> str | None:
        """Restores the latest checkpoint as a training does, which puts the directory in order.

        Nothing but the training that holds the directory may do that.
        """
        writes = writes and os.access(self._directory, os.W_OK)
        if writes:
            self.writer.recover()
        restored = self.restore()
        if restored and writes:
            self.writer.set_aside(restored)
        return restored


def sections_of(trainer: "Trainer") -> Sections:
    """Returns everything that the training of a trainer goes on from."""
    steps = trainer._steps
    own = {
        "global_step": trainer.global_step,
        checkpoints.EVALUATION: trainer.evaluation_due,
        checkpoints.MEANS: steps.train_means.state,
        **{name: follower.state for name, follower in trainer._followers.items()},
    }
    if steps.skips is not None:
        own[checkpoints.SKIPS] = steps.skips.state
    return {
        "model": checkpoints.by_path(trainer.model.variables),
        "optimizer": checkpoints.optimizer_variables(trainer.optimizer),
        "trainer": own,
    }


def telling_the_last_good(method: Callable) -> Callable:
    """Decorates a method of a trainer: errors that numbers or a disk cause say what is left."""

    @functools.wraps(method)
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except _ENDING as error:
            raise type(error)(f"{error}. {self._checkpoints.last_good()}") from error

    return told
