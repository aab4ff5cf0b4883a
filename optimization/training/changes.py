"""What has changed in an experiment's settings since a checkpoint was written.

Settings are compared by what they mean: "10%" is a number of steps, and what None stands for is
filled in. A checkpoint that does not fit is explained by the settings that differ; its variables
say little to whoever changed a setting.
"""

import copy
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from optimization.configs import yaml_file
from optimization.configs.comparing import in_training
from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.layers import layered
from optimization.configs.tree import Node
from optimization.matching.rules import MATCHERS
from optimization.training.errors import CheckpointError, MisfitError, first
from optimization.training.history import PARAMS_FILE

_OPTIMIZER = re.compile(r"trainer\.optimizer_config\.(param_groups\[.*\]\.)?optimizer\.type")
# Which settings decide about the variables of a section of a checkpoint.
_DECIDING = {
    "model": re.compile(r"experiment|task\.(?!train_data|validation_data|init_checkpoint).*"),
    "optimizer": re.compile(
        r"trainer\.optimizer_config\..*|runtime\.(mixed_precision_dtype|loss_scale)"
    ),
    "trainer": re.compile(r"trainer\.optimizer_config\.learning_rate\..*"),
}


class Sized(NamedTuple):
    """What a value comes to that is written in another way, such as "10%", or left out."""

    value: Any
    written: Any

    def __str__(self) -> str:
        return f"{_text(self.value)} ({_text(self.written)})"


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
    if isinstance(value, Sized):
        return str(value)
    if isinstance(value, Mapping):
        return "set"
    return value if isinstance(value, str) and value else json.dumps(value)


def since(path: str, config: ExperimentConfig) -> list[Change]:
    """Returns what `config` sets otherwise than the checkpoint `path` has been made with."""
    return changes(settings_of(path), config)


def settings_of(path: str) -> Mapping[str, Any]:
    """Returns the settings with which a checkpoint has been made, {} where they are not known.

    A checkpoint of an earlier version has none; those of its directory stand in then.
    """
    from optimization.training.checkpoints import saved_settings

    text = saved_settings(path)
    if not text:
        return _settings_in(os.path.dirname(path))
    settings, problems = yaml_file.read(text)
    return {} if problems else settings


def _settings_in(directory: str) -> Mapping[str, Any]:
    settings, problems = yaml_file.read_file(os.path.join(directory, PARAMS_FILE))
    return {} if problems else settings


def since_params(directory: str, config: ExperimentConfig) -> list[Change]:
    """Returns what `config` sets otherwise than `params.yaml` says; it needs no TensorFlow."""
    return changes(_settings_in(directory), config)


def changes(was: Mapping[str, Any], config: ExperimentConfig) -> list[Change]:
    """Returns what `config` sets otherwise than `was`, the exported values of one before.

    Values that only one of the two has come from another version of the code, and do not count;
    nor does `trainer.resume`, which says what to do about the others.
    """
    if not was:
        return []
    if not was.get("experiment"):  # Settings made in Python need no name.
        was = {**was, "experiment": config.experiment}
    values = config.as_dict()
    values["trainer"].pop("resume", None)
    try:
        meanings = _meaning(was, config_of(was, config)), _meaning(values, config)
    except ConfigError:  # Of another version of the code; then texts are compared.
        return list(_differences(was, values, ""))
    return list(_differences(*meanings, ""))


def config_of(was: Mapping[str, Any], config: ExperimentConfig) -> ExperimentConfig:
    """Returns the config that was exported, of the class of `config`, as far as it is still one.

    Raises:
        ConfigError: If values are no longer right; keys that are no longer there are left out.
    """
    base = type(config)(task=type(config.task)())
    found, problems = layered(base, [was])
    wrong = [problem for problem in problems if problem.code != "unknown-key"]
    if wrong:
        raise ConfigError(wrong)
    return found


def _meaning(written: Mapping[str, Any], config: ExperimentConfig) -> dict[str, Any]:
    """Returns the values of `written`, an export of `config`, as what they come to.

    Raises:
        ConfigError: If steps cannot be made numbers.
    """
    config = in_training(config)
    values = config.as_dict()
    trainer, runtime = values["trainer"], values["runtime"]
    trainer["schedule_start"] = trainer["schedule_start"] or 0
    if config.runtime.scales_dynamically:
        runtime["loss_scale"] = "dynamic"
    for data in (values["task"]["train_data"], values["task"]["validation_data"]):
        data["seed"] = runtime["seed"] if data["seed"] is None else data["seed"]
    _fill_in(values, config)
    optimization = trainer["optimizer_config"]
    for place in (optimization, *optimization["param_groups"]):
        if section := place["optimizer"].get(place["optimizer"]["type"]):
            section["on_nonfinite"] = section.get("on_nonfinite") or "propagate"
        warmup = place["warmup"]
        if warmup["type"] and warmup[warmup["type"]].get("warmup_steps") == 0:
            place["warmup"] = {"type": None}
    return _as_written(_fill_in(copy.deepcopy(dict(written)), config), values)


def _fill_in(values: Any, part: Any) -> Any:
    """Gives an export the fields that it leaves out where they are not set; returns it."""
    if isinstance(part, Node):
        for name, usual in part._left_out().items():
            values.setdefault(name, usual)
        inner = [(values.get(name), value) for name, value in part._items()]
    elif isinstance(part, Mapping):
        inner = [(values.get(name), value) for name, value in part.items()]
    else:
        are_parts = isinstance(part, list | tuple) and len(part) == len(values)
        inner = list(zip(values, part, strict=True)) if are_parts else []
    for value, each in inner:
        if isinstance(value, dict | list):
            _fill_in(value, each)
    return values


def _as_written(written: Any, values: Any) -> Any:
    """Returns `values` with the way in which each was written, and those alone that were."""
    if isinstance(values, Mapping) and isinstance(written, Mapping):
        return {n: _as_written(written[n], value) for n, value in values.items() if n in written}
    if _are_groups(values) and _are_groups(written) and len(values) == len(written):
        return [_as_written(*pair) for pair in zip(written, values, strict=True)]
    return values if written == values else Sized(values, written)


def _differences(was: Any, now: Any, path: str) -> Iterator[Change]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        prefix = f"{path}." if path else ""
        types = was.get("type"), now.get("type")
        if _value(types[0]) != _value(types[1]):  # The branches have nothing in common.
            yield Change(f"{prefix}type", *types)
            return
        if path.endswith(".schedules") and was.keys() != now.keys():  # names are the user's
            yield Change(path, sorted(was), sorted(now))
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
    elif _value(was) != _value(now) and not (_is_filled_in(was) and _is_filled_in(now)):
        yield Change(path, was, now)


def _value(value: Any) -> Any:
    return value.value if isinstance(value, Sized) else value


def _is_filled_in(value: Any) -> bool:
    """Whether a value comes of another setting, which is told if it differs."""
    return value is None or (isinstance(value, Sized) and value.written is None)


def _are_groups(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _group_name(group: Mapping[str, Any]) -> str:
    names = (_value(v) for n in ("name", *MATCHERS) if (v := group.get(n)) is not None)
    return str(next(names, ""))


def check_identity(path: str, found: list[Change], chosen: bool = False) -> None:
    """Raises a `CheckpointError` if a checkpoint is of another experiment or other optimizers.

    Another optimizer is another training, even where the variables happen to have the same names,
    unless it was `chosen` to go on with it.
    """
    others = [
        change
        for change in found
        if change.path == "experiment" or (not chosen and _OPTIMIZER.fullmatch(change.path))
    ]
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
    """Returns the changes on one line."""
    shown = [line.replace(": was", " was", 1) for line in first(found, 20)]
    return f"changed since: {'; '.join(shown)}"
