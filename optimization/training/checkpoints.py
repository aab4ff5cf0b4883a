"""Checkpoints in which every variable is found by its path, never by its position."""

import contextlib
import json
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping

from optimization.training.errors import CheckpointError

if typing.TYPE_CHECKING:
    import keras
    import tensorflow as tf

Sections = Mapping[str, Mapping[str, "tf.Variable"]]

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# What TensorFlow writes for "/" and "." in the names of dictionary entries.
_ESCAPE = re.compile(r"\.[.S]")
_LISTED = 10


def by_path(variables: Iterable["keras.Variable"]) -> dict[str, "tf.Variable"]:
    """Returns TensorFlow's variables by path; a path used again gets "#2", "#3" and so on."""
    from optimization.optimizers.state import by_unique_name

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
    """

    def __init__(
        self, directory: str, sections: Sections, max_to_keep: int = 5, writable: bool = True
    ):
        import tensorflow as tf

        self.directory = directory
        self._sections = sections
        self._checkpoint = tf.train.Checkpoint(**{k: dict(v) for k, v in sections.items()})
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, directory, max_to_keep=max_to_keep
        )
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
            CheckpointError: If the checkpoint lacks a variable, has one too many, or has one of
                another shape; nothing was changed then.
        """
        path = path or latest_checkpoint(self.directory)
        if path is None:
            return None
        _compare(path, self._sections, leftover_is_wrong=True)
        with _readable(path):
            self._checkpoint.restore(path).assert_consumed()
        return path


def latest_checkpoint(directory: str) -> str | None:
    """Returns the path of the latest checkpoint in `directory`, None if there never was one.

    Raises:
        CheckpointError: If there are files of checkpoints, and none is whole.
    """
    import tensorflow as tf

    found = tf.train.latest_checkpoint(directory)
    if found is not None:
        return found
    # The file that names the latest one is damaged, or what it names is gone.
    paths = [path.removesuffix(".index") for path in tf.io.gfile.glob(f"{directory}/ckpt-*.index")]
    whole = [path for path in paths if tf.io.gfile.glob(f"{path}.data-*")]
    if whole:
        return max(whole, key=lambda path: int(path.rpartition("-")[2]))
    if paths or os.path.exists(os.path.join(directory, "checkpoint")):
        raise CheckpointError(
            f"{directory!r} holds files of checkpoints, but no checkpoint that is whole; remove "
            "them to start anew"
        )
    return None


def load_model(model: "keras.Model", path: str) -> None:
    """Sets the variables of `model` to their values in a checkpoint that this package wrote.

    Args:
        model: The model; the checkpoint may hold more than it needs.
        path: The checkpoint, or a directory of which the latest is taken.

    Raises:
        CheckpointError: If there is none, or a variable is missing or of another shape.
    """
    import tensorflow as tf

    found = latest_checkpoint(path) if os.path.isdir(path) else path
    if found is None or not tf.io.gfile.glob(f"{found}.index"):
        raise CheckpointError(f"there is no checkpoint at {path!r}")
    sections = {"model": by_path(model.variables)}
    _compare(found, sections, leftover_is_wrong=False)
    checkpoint = tf.train.Checkpoint(**sections)
    with _readable(found):
        checkpoint.read(found).expect_partial().assert_existing_objects_matched()


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


def _stored(path: str) -> dict[str, list[int]]:
    """Returns the shapes of what a checkpoint holds, by "section: variable path"."""
    import tensorflow as tf

    with _readable(path):
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    result = {}
    for key, shape in shapes.items():
        if not key.endswith(_VALUE) or key.startswith("save_counter"):
            continue
        section, _, name = key.removesuffix(_VALUE).partition("/")
        result[f"{section}: {_ESCAPE.sub(_unescape, name)}"] = shape
    return result


def _compare(path: str, sections: Sections, leftover_is_wrong: bool) -> None:
    stored = _stored(path)
    wanted = {
        f"{section}: {name}": variable.shape.as_list()
        for section, variables in sections.items()
        for name, variable in variables.items()
    }
    parts = []
    missing = [name for name in wanted if name not in stored]
    if missing:
        parts.append(_listing("missing from the checkpoint", missing))
    leftover = [name for name in stored if name not in wanted]
    if leftover and leftover_is_wrong:
        parts.append(_listing("left over in the checkpoint", leftover))
    shapes = [
        f"{name}: {stored[name]} in the checkpoint, {shape} here"
        for name, shape in wanted.items()
        if name in stored and stored[name] != shape
    ]
    if shapes:
        parts.append(_listing("of another shape", shapes))
    if parts:
        head = f"the checkpoint {path} does not fit the model and the optimizer"
        raise CheckpointError("\n".join([head, *parts]))


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
