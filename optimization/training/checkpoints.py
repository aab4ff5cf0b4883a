"""Checkpoints in which every variable is found by its path, never by its position."""

import contextlib
import json
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping

import keras
import tensorflow as tf

from optimization.configs.experiment_config import TrainerConfig
from optimization.keras.paths import saved_names
from optimization.keras.state import by_unique_name
from optimization.training.checkpoint_files import find_checkpoint
from optimization.training.errors import CheckpointError, MisfitError, first

Sections = Mapping[str, Mapping[str, tf.Variable]]
"""Variables by section ("model", "optimizer", ...) and path."""

STOPPING = "early_stopping_state"
"""A variable of the trainer that a checkpoint may lack, or have for nothing: early stopping may be
set, or left out, when a run goes on."""

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


def manager_of(
    directory: str, sections: Sections, max_to_keep: int = 5, settings: str = ""
) -> tf.train.CheckpointManager:
    """Returns what writes `ckpt-<step>` to a directory, with `settings` for `saved_settings`."""

    class Text(tf.train.experimental.PythonState):
        def serialize(self) -> str:
            return settings

        def deserialize(self, string_value: bytes) -> None:
            del string_value

    saved = tf.train.Checkpoint(**{k: dict(v) for k, v in sections.items()})
    if settings:
        saved.settings = Text()
    return tf.train.CheckpointManager(saved, directory, max_to_keep=max_to_keep)


def load_model(model: keras.Model, path: str) -> None:
    """Sets the variables of `model` to those in a checkpoint, or in the latest of a directory.

    Raises:
        CheckpointError: If there is none, or a variable is missing or of another shape.
    """
    load(find_checkpoint(path), {"model": by_path(model.variables)}, partly=True)


def load(path: str, sections: Sections, partly: bool = False) -> None:
    """Sets variables to those in the checkpoint `path`, to all of them or only `partly`.

    Raises:
        MisfitError: If the checkpoint lacks a variable, has one too many, or has one of another
            shape or dtype; nothing was changed then.
        CheckpointError: If it cannot be read.
    """
    stored = _stored(path)
    own, stopping = sections.get("trainer", {}), f"trainer: {STOPPING}"
    if STOPPING in own and stopping not in stored:
        sections = {**sections, "trainer": {k: v for k, v in own.items() if k != STOPPING}}
    elif STOPPING not in own:
        stored.pop(stopping, None)
    sections = _as_saved(stored, sections)
    _compare(path, stored, sections, partly)
    with _readable(path):
        read = tf.train.Checkpoint(**sections).read(path)
        read.expect_partial().assert_existing_objects_matched()


def saved_settings(path: str) -> str:
    """Returns the text that was saved as settings with the checkpoint `path`; "" if none was."""
    with _readable(path):
        reader = tf.train.load_checkpoint(path)
        if not reader.has_tensor(_SETTINGS):
            return ""
        return reader.get_tensor(_SETTINGS).decode()


def holds_model_only(path: str) -> bool:
    """Whether the checkpoint `path` is of weights alone, as that of the best evaluation is."""
    return all(name.startswith("model: ") for name in _stored(path))


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, IndexError, ValueError) as error:  # as the damage happens to be
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the checkpoint {path} cannot be read: {reason}") from error


class _Kind(typing.NamedTuple):
    """What two variables must have in common."""

    shape: list[int]
    dtype: str


def _stored(path: str) -> dict[str, _Kind]:
    """Returns the shapes and dtypes of what a checkpoint holds, by "section: variable path"."""
    with _readable(path):
        reader = tf.train.load_checkpoint(path)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    result = {}
    for key, shape in shapes.items():
        if key.endswith(_VALUE) and not key.startswith("save_counter"):
            section, _, name = key.removesuffix(_VALUE).partition("/")
            name = re.sub(r"\.[.S]", lambda match: _ESCAPED[match[0]], name)
            result[f"{section}: {name}"] = _Kind(shape, dtypes[key].name)
    return result


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


def _compare(path: str, stored: Mapping[str, _Kind], sections: Sections, partly: bool) -> None:
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
            f"{name}: {stored[name][position]} in the checkpoint, {kind[position]} here"
            for name, kind in wanted.items()
            if name in stored and stored[name][position] != kind[position]
        ]
    lines = [f"the checkpoint {path} does not fit the model and the optimizer"]
    for title, names in listings.items():
        if names:
            lines += [f"  {title} ({len(names)}):", *(f"    {n}" for n in first(sorted(names)))]
    wrong = {name.partition(":")[0] for names in listings.values() for name in names}
    if wrong:
        raise MisfitError("\n".join(lines), wrong)


class BestCheckpoint:
    """Keeps the weights that the model has at the best evaluation, and `info.json` beside them.

    What the directory holds does not count in a `fresh` run; of several workers one is `writable`.
    """

    def __init__(
        self, directory: str, config: TrainerConfig, model: keras.Model, fresh: bool, writable: bool
    ):
        self._metric = config.best_checkpoint_eval_metric
        self._higher = config.best_checkpoint_metric_comp == "higher"
        self._writable = writable
        self._manager = manager_of(directory, {"model": by_path(model.variables)}, max_to_keep=1)
        self._info = os.path.join(directory, "info.json")
        self.best: float | None = None
        if fresh or (found := self.info()) is None:
            return
        try:
            self.best = found["metrics"].get(self._metric)
        except (KeyError, TypeError, AttributeError):
            raise self._damaged() from None

    def info(self) -> dict[str, typing.Any] | None:
        """Returns what `info.json` says: `step`, `metric`, `metrics`; None where there is none."""
        if not os.path.exists(self._info):
            return None
        try:
            with open(self._info, encoding="utf-8") as file:
                return json.load(file)
        except ValueError:
            raise self._damaged() from None

    def _damaged(self) -> CheckpointError:
        return CheckpointError(
            f"{self._info} is damaged; remove it to look for the best weights anew"
        )

    def offer(self, metrics: Mapping[str, float], step: int) -> bool:
        """Keeps the weights if `metrics` are better than the best before; says whether they are.

        Raises:
            CheckpointError: If the metric that decides is not among `metrics`.
        """
        if self._metric not in metrics:
            raise CheckpointError(
                f"trainer.best_checkpoint_eval_metric is {self._metric!r}; "
                f"the evaluation gives {', '.join(sorted(metrics))}"
            )
        value = metrics[self._metric]
        if self.best is not None and not (value > self.best if self._higher else value < self.best):
            return False
        self.best = value
        if self._writable:
            self._manager.save(checkpoint_number=step)
            info = {"step": step, "metric": self._metric, "metrics": dict(metrics)}
            with open(self._info, "w", encoding="utf-8") as file:
                json.dump(info, file, indent=2)
        return True
