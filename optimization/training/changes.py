"""What has changed in an experiment's settings since a checkpoint was written.

A checkpoint that does not fit is explained by the settings that differ; its variables say little to
whoever changed a setting.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from optimization.configs import yaml_file
from optimization.configs.experiment_config import ExperimentConfig
from optimization.matching.rules import MATCHERS
from optimization.training.errors import CheckpointError, MisfitError, first

PARAMS_FILE = "params.yaml"

_OPTIMIZER = r"trainer\.optimizer_config\.(param_groups\[.*\]\.)?optimizer\.type"
# Another of these is another training, even where the variables happen to have the same names.
_IDENTITY = re.compile(rf"experiment|{_OPTIMIZER}")
# Which settings decide about the variables of a section of a checkpoint.
_DECIDING = {
    "model": re.compile(r"experiment|task\.(?!train_data|validation_data|init_checkpoint).*"),
    "optimizer": re.compile(
        r"trainer\.optimizer_config\..*|runtime\.(mixed_precision_dtype|loss_scale)"
    ),
    "trainer": re.compile(r"trainer\.optimizer_config\.learning_rate\..*"),
}


class Change(NamedTuple):
    """One setting that differs."""

    path: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.path}: was {_text(self.was)}, is {_text(self.now)}"


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Mapping):
        return "set"
    return value if isinstance(value, str) and value else json.dumps(value)


def since(path: str, config: ExperimentConfig) -> list[Change]:
    """Returns what `config` sets otherwise than the checkpoint `path` has been made with.

    A checkpoint of an earlier version has no settings; those of its directory stand in then.
    """
    from optimization.training.checkpoints import saved_settings

    text = saved_settings(path)
    if not text:
        return since_params(os.path.dirname(path), config)
    was, problems = yaml_file.read(text)
    return [] if problems else changes(was, config)


def since_params(directory: str, config: ExperimentConfig) -> list[Change]:
    """Returns what `config` sets otherwise than `params.yaml` says; it needs no TensorFlow."""
    was, problems = yaml_file.read_file(os.path.join(directory, PARAMS_FILE))
    return [] if problems else changes(was, config)


def changes(was: Mapping[str, Any], config: ExperimentConfig) -> list[Change]:
    """Returns what `config` sets otherwise than `was`, the exported values of one before.

    Values that only one of the two has come from another version of the code, and do not count.
    """
    if not was.get("experiment"):  # Settings made in Python need no name.
        was = {**was, "experiment": config.experiment}
    return list(_differences(was, config.as_dict(), ""))


def _differences(was: Any, now: Any, path: str) -> Iterator[Change]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        prefix = f"{path}." if path else ""
        if was.get("type") != now.get("type"):  # The branches have nothing in common.
            yield Change(f"{prefix}type", was.get("type"), now.get("type"))
            return
        for name in now:
            if name in was:
                yield from _differences(was[name], now[name], f"{prefix}{name}")
    elif _are_groups(was) and _are_groups(now):
        theirs, ours = [_group_name(group) for group in was], [_group_name(group) for group in now]
        if theirs != ours:
            yield Change(path, theirs, ours)
            return
        for name, one, other in zip(ours, was, now, strict=True):
            yield from _differences(one, other, f"{path}[{name}]")
    elif was != now:
        yield Change(path, was, now)


def _are_groups(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _group_name(group: Mapping[str, Any]) -> str:
    return str(next((v for n in ("name", *MATCHERS) if (v := group.get(n)) is not None), ""))


def check_identity(path: str, found: list[Change]) -> None:
    """Raises a `CheckpointError` if a checkpoint is of another experiment or other optimizers."""
    others = [change for change in found if _IDENTITY.fullmatch(change.path)]
    if others:
        raise CheckpointError(_message(path, others))


def explained(path: str, found: list[Change], error: MisfitError) -> CheckpointError:
    """Returns why the variables of a checkpoint do not fit: by the settings, if those say it."""
    causes = [
        change
        for change in found
        if any(_DECIDING[section].fullmatch(change.path) for section in error.sections)
        # A factor that is not 0 has its variables before and after.
        and not all(isinstance(value, float) and value for value in (change.was, change.now))
    ]
    return CheckpointError(_message(path, causes)) if causes else error


def _message(path: str, causes: list[Change]) -> str:
    lines = "\n".join(f"  {line}" for line in first(causes))
    return (
        f"the checkpoint {path} was made with other settings and does not fit:\n{lines}\n"
        "Set this as it was to go on from there. To train otherwise, take another --model_dir; "
        f"task.init_checkpoint={os.path.dirname(path) or '.'} starts from these weights"
    )


def summary(found: list[Change]) -> str:
    """Returns the changes on one line, the first few of them."""
    shown = [line.replace(": was", " was") for line in first(found, 5)]
    return f"changed since: {'; '.join(shown)}"
