"""The weights of the best evaluation."""

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras

from optimization.configs.experiment_config import TrainerConfig
from optimization.training.checkpoint_files import latest_checkpoint, numbered_checkpoints, step_of
from optimization.training.checkpoint_writer import CheckpointWriter
from optimization.training.checkpoints import by_path, damage, saved_settings
from optimization.training.errors import CheckpointError, UnwrittenError
from optimization.training.results import finite, write_json

INFO_FILE = "info.json"


class BestCheckpoint:
    """Keeps the weights that the model has at the best evaluation, and `info.json` beside them.

    What `info.json` says is part of the checkpoint too, from which it is written again if need be.

    Args:
        directory: Where.
        config: Says which metric decides, and how.
        model: Of which the weights are.
        fresh: Whether a run begins, for which what the directory holds does not count.
        writable: Whether to write; of several workers one does.
        say: Takes what is told of the directory.
    """

    def __init__(
        self,
        directory: str,
        config: TrainerConfig,
        model: keras.Model,
        fresh: bool,
        writable: bool,
        say: Callable[[str], None] = print,
    ):
        self._metric = config.best_checkpoint_eval_metric
        self._higher = config.best_checkpoint_metric_comp == "higher"
        self._writable, self._say = writable, say
        self.writer = CheckpointWriter(
            directory, {"model": by_path(model.variables)}, max_to_keep=1, settings="{}"
        )
        self._path = os.path.join(directory, INFO_FILE)
        self._info = None if fresh else self._found(directory)
        self.best = self._value_of(self._info)

    def info(self) -> dict[str, Any] | None:
        """Returns the best evaluation: `step`, `metric`, `metrics`; None where there is none."""
        return self._info

    def recover(self) -> None:
        """Puts the directory in order; nothing but the training that holds it may do that."""
        if self._writable:
            self.writer.recover()

    def _found(self, directory: str) -> dict[str, Any] | None:
        """Returns what is known of the weights that are there, and tells what is wrong with it."""
        written, reason = _read(self._path)
        try:
            path, exempt = latest_checkpoint(directory, "previous"), self.writer.infinite_on_purpose
            damaged = (path and damage(path, exempt)) or ""
        except CheckpointError as error:
            path, damaged = None, str(error)
        if path is None and not damaged and os.path.exists(self._path):
            damaged = f"{self._path} is there, and the weights are not"
        if damaged:
            self._say(f"{damaged}; the best weights are looked for anew")
        if path is None or damaged:
            return None
        kept = _parsed(saved_settings(path))
        if kept is None and written is not None and written["step"] == step_of(path):
            kept = written  # of a version that did not keep it with the weights
        if kept is None:
            reason = reason or f"{self._path} is not of {path}"
            self._say(f"{reason}; the best weights are looked for anew")
        elif kept != written:
            self._say(f"{reason or f'{self._path} is not of {path}'}; it is written anew")
            if self._writable:
                write_json(self._path, kept)
        return kept

    def _value_of(self, info: Mapping[str, Any] | None) -> float | None:
        if info is None:
            return None
        value = info["metrics"].get(self._metric)
        if not _is_finite(value):
            self._say(f"{self._path} has no {self._metric!r}; the best weights are looked for anew")
            return None
        if info["metric"] != self._metric:
            self._say(
                f"{self._path}: the best weights were the best by {info['metric']!r}; now "
                f"{self._metric!r} decides, which is {value:.5g} with them"
            )
        return value

    def offer(self, metrics: Mapping[str, float], step: int) -> bool:
        """Keeps the weights if `metrics` are better than the best before; says whether they are.

        Raises:
            CheckpointError: If the metric that decides is not among `metrics`.
            UnwrittenError: If the weights cannot be written.
            NonFiniteWeightsError: If they are not finite.
        """
        if self._metric not in metrics:
            raise CheckpointError(
                f"trainer.best_checkpoint_eval_metric is {self._metric!r}; "
                f"the evaluation gives {', '.join(sorted(metrics))}"
            )
        value = metrics[self._metric]
        if not _is_finite(value):
            return False
        if self.best is not None and not (value > self.best if self._higher else value < self.best):
            return False
        info = {"step": step, "metric": self._metric, "metrics": finite(dict(metrics))}
        if self._writable:
            self._keep(info)
        else:
            self.writer.check(step)
        self.best, self._info = value, info
        return True

    def _keep(self, info: dict[str, Any]) -> None:
        step, directory = info["step"], self.writer.directory
        self.writer.save(step, settings=json.dumps(info))
        try:
            write_json(self._path, info)
            for other, name in numbered_checkpoints(directory).items():
                if other != step:
                    self.writer.remove(name)
        except OSError as error:
            raise UnwrittenError(f"{self._path} cannot be written: {error}") from error


def _read(path: str) -> tuple[dict[str, Any] | None, str]:
    """Returns what `info.json` says, or why it says nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return None, f"{path} is missing"
    except (OSError, ValueError) as error:
        return None, f"{path} cannot be read: {error}"
    found = _parsed(text)
    return found, "" if found else f"{path} is damaged"


def _parsed(text: str) -> dict[str, Any] | None:
    """Returns what is known of an evaluation; None if the text does not say it."""
    try:
        found = json.loads(text)
        known = isinstance(found["step"], int) and isinstance(found["metric"], str)
        return found if known and isinstance(found["metrics"], dict) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
