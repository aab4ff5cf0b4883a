"""Checkpoints in which every variable is found by its path, never by its position."""

import contextlib
import json
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping

from optimization.training.checkpoint_files import find_checkpoint, latest_checkpoint
from optimization.training.errors import CheckpointError, MisfitError

if typing.TYPE_CHECKING:
    import keras
    import tensorflow as tf

Sections = Mapping[str, Mapping[str, "tf.Variable"]]

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SETTINGS = "settings/.ATTRIBUTES/py_state"
# What TensorFlow writes for "/" and "." in the names of dictionary entries.
_ESCAPE = re.compile(r"\.[.S]")
_LISTED = 10


def by_path(variables: Iterable["keras.Variable"]) -> dict[str, "tf.Variable"]:
    """Returns TensorFlow's variables by path; a path used again gets "#2", "#3" and so on."""
    from optimization.keras.state import by_unique_name

    return by_unique_name((variable.path, variable.value) for variable in variables)


def optimizer_variables(optimizer: "keras.optimizers.Optimizer") -> dict[str, "tf.Variable"]:
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


class CheckpointStore:
    """The checkpoints `ckpt-<step>` of one directory.

    Args:
        directory: Where they are.
        sections: The variables by section ("model", "optimizer", ...) and path.
        max_to_keep: How many are kept.
        writable: Whether `save` writes; of several workers, only one does.
        settings: Text that is saved too, for `saved_settings`; "" for none.
    """

    def __init__(
        self,
        directory: str,
        sections: Sections,
        max_to_keep: int = 5,
        writable: bool = True,
        settings: str = "",
    ):
        import tensorflow as tf

        self.directory = directory
        self._sections = sections
        saved = tf.train.Checkpoint(**{k: dict(v) for k, v in sections.items()})
        if settings:
            saved.settings = _text_state(settings)
        self._manager = tf.train.CheckpointManager(saved, directory, max_to_keep=max_to_keep)
        self._writable = writable

    def save(self, step: int) -> str | None:
        """Writes a checkpoint and returns its path; None where this process does not write."""
        if not self._writable:
            return None
        return self._manager.save(checkpoint_number=step)

    def restore(self, path: str | None = None) -> str | None:
        """Sets all variables to their values in the checkpoint `path`, or in the latest one.

        Returns:
            The path that was read; None if the directory holds no checkpoint.

        Raises:
            MisfitError: If the checkpoint lacks a variable, has one too many, or has one of
                another shape or dtype; nothing was changed then.
            CheckpointError: If it cannot be read.
        """
        import tensorflow as tf

        path = path or latest_checkpoint(self.directory)
        if path is None:
            return None
        sections = _as_saved(path, self._sections)
        _compare(path, sections, leftover_is_wrong=True)
        with _readable(path):
            found = tf.train.Checkpoint(**sections).restore(path)
            found.assert_existing_objects_matched().expect_partial()
        return path


def _text_state(text: str) -> "tf.train.experimental.PythonState":
    """Returns what saves `text` and takes nothing back."""
    import tensorflow as tf

    class Text(tf.train.experimental.PythonState):
        def serialize(self) -> str:
            return text

        def deserialize(self, string_value: bytes) -> None:
            del string_value

    return Text()


def load_model(model: "keras.Model", path: str) -> None:
    """Sets the variables of `model` to their values in a checkpoint that this package wrote.

    Args:
        model: The model; the checkpoint may hold more than it needs.
        path: The checkpoint, or a directory of which the latest is taken.

    Raises:
        CheckpointError: If there is none, or a variable is missing or of another shape.
    """
    import tensorflow as tf

    found = find_checkpoint(path)
    sections = _as_saved(found, {"model": by_path(model.variables)})
    _compare(found, sections, leftover_is_wrong=False)
    checkpoint = tf.train.Checkpoint(**sections)
    with _readable(found):
        checkpoint.read(found).expect_partial().assert_existing_objects_matched()


def saved_settings(path: str) -> str:
    """Returns the text that was saved as settings with the checkpoint `path`; "" if none was."""
    import tensorflow as tf

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
    import tensorflow as tf

    try:
        yield
    except (tf.errors.OpError, IndexError, ValueError) as error:  # as the damage happens to be
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the checkpoint {path} cannot be read: {reason}") from error


def _unescape(match: re.Match) -> str:
    return "/" if match[0] == ".S" else "."


class _Kind(typing.NamedTuple):
    """What two variables must have in common."""

    shape: list[int]
    dtype: str


def _stored(path: str) -> dict[str, _Kind]:
    """Returns the shapes and dtypes of what a checkpoint holds, by "section: variable path"."""
    import tensorflow as tf

    with _readable(path):
        reader = tf.train.load_checkpoint(path)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    result = {}
    for key, shape in shapes.items():
        if not key.endswith(_VALUE) or key.startswith("save_counter"):
            continue
        section, _, name = key.removesuffix(_VALUE).partition("/")
        result[f"{section}: {_ESCAPE.sub(_unescape, name)}"] = _Kind(shape, dtypes[key].name)
    return result


def _as_saved(path: str, sections: Sections) -> dict[str, dict[str, "tf.Variable"]]:
    """Returns the variables by the paths that they had, where Keras has numbered layers anew."""
    from optimization.keras.renumbering import saved_names

    stored = _stored(path)
    paths = [*sections["model"], *_of_loss_scale(sections.get("optimizer", ()))]
    result = {}
    for section, variables in sections.items():
        start = f"{section}: "
        saved = [name.removeprefix(start) for name in stored if name.startswith(start)]
        names = saved_names(variables, saved, paths)
        result[section] = {names[name]: variable for name, variable in variables.items()}
    return result


def _of_loss_scale(names: Iterable[str]) -> list[str]:
    inner = [name for name in names if name.startswith("inner/")]
    return [name for name in names if name not in inner] if inner else []


def _compare(path: str, sections: Sections, leftover_is_wrong: bool) -> None:
    stored = _stored(path)
    wanted = {
        f"{section}: {name}": _Kind(variable.shape.as_list(), variable.dtype.name)
        for section, variables in sections.items()
        for name, variable in variables.items()
    }
    listings = {
        "missing from the checkpoint": [name for name in wanted if name not in stored],
        "left over in the checkpoint": [
            name for name in stored if name not in wanted and leftover_is_wrong
        ],
    }
    for field in _Kind._fields:
        kinds = {
            name: (getattr(stored[name], field), getattr(kind, field))
            for name, kind in wanted.items()
            if name in stored
        }
        listings[f"of another {field}"] = [
            f"{name}: {theirs} in the checkpoint, {mine} here"
            for name, (theirs, mine) in kinds.items()
            if theirs != mine
        ]
    parts = [_listing(title, names) for title, names in listings.items() if names]
    if parts:
        head = f"the checkpoint {path} does not fit the model and the optimizer"
        names = [name for names in listings.values() for name in names]
        raise MisfitError("\n".join([head, *parts]), {name.partition(":")[0] for name in names})


def _listing(title: str, names: list[str]) -> str:
    lines = [f"  {title} ({len(names)}):", *(f"    {name}" for name in sorted(names)[:_LISTED])]
    if len(names) > _LISTED:
        lines.append(f"    and {len(names) - _LISTED} more")
    return "\n".join(lines)


class BestCheckpoint:
    """Keeps the model's weights of the best evaluation, and `info.json` beside them.

    Args:
        directory: Where they are kept.
        metric: The name of the metric that decides.
        higher: Whether a higher value is better.
        model: The model; it holds the weights to be kept when `offer` is called.
        fresh: Whether the run starts anew, so that what the directory holds does not count.
        writable: As for `CheckpointStore`.
    """

    def __init__(
        self,
        directory: str,
        metric: str,
        higher: bool,
        model: "keras.Model",
        fresh: bool,
        writable: bool = True,
    ):
        self.directory = directory
        self.metric = metric
        self._higher = higher
        self._writable = writable
        self._store = CheckpointStore(
            directory, {"model": by_path(model.variables)}, max_to_keep=1, writable=writable
        )
        self._info = os.path.join(directory, "info.json")
        self.best: float | None = None
        if not fresh and os.path.exists(self._info):
            self.best = self._read_best()

    def _read_best(self) -> float | None:
        try:
            with open(self._info, encoding="utf-8") as file:
                return json.load(file)["metrics"].get(self.metric)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(
                f"{self._info} is damaged; remove it to look for the best weights anew"
            ) from None

    def offer(self, metrics: Mapping[str, float], step: int) -> bool:
        """Keeps the weights if `metrics` are better than the best before.

        Returns:
            Whether they are.

        Raises:
            CheckpointError: If the metric that decides is not among `metrics`.
        """
        if self.metric not in metrics:
            raise CheckpointError(
                f"trainer.best_checkpoint_eval_metric is {self.metric!r}; "
                f"the evaluation gives {', '.join(sorted(metrics))}"
            )
        value = metrics[self.metric]
        if self.best is not None and not (value > self.best if self._higher else value < self.best):
            return False
        self.best = value
        self._store.save(step)
        if self._writable:
            info = {"step": step, "metric": self.metric, "metrics": dict(metrics)}
            with open(self._info, "w", encoding="utf-8") as file:
                json.dump(info, file, indent=2)
        return True
