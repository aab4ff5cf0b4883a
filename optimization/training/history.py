"""`params.yaml` of a run, and its history: which settings held from which step to which.

`params.yaml` has the settings of now. Those before are `params.1.yaml`, `params.2.yaml` and so on,
each a config file too; the first line of each says for which steps it held.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any

from optimization.configs import yaml_file
from optimization.configs.experiment_config import ExperimentConfig
from optimization.training.whole_files import write_whole

PARAMS_FILE = "params.yaml"

_EARLIER = re.compile(r"params\.(\d+)\.yaml")
_HELD = re.compile(r"# The settings of this run from step (\d+) (?:on|to step \d+)\.$")


def settings_at(directory: str, step: int) -> Mapping[str, Any] | None:
    """Returns the settings with which the checkpoint of a step was made; None if not known."""
    for path in reversed(_files(directory)):
        first, settings = _read(path)
        if settings is not None and (first < step or not step):
            return settings
    return None


def keep(directory: str, config: ExperimentConfig, step: int) -> None:
    """Writes the settings that hold from a step on, and keeps others that held before.

    Settings that held for no step, such as those of a run that died before its first checkpoint,
    are no history.
    """
    path = os.path.join(directory, PARAMS_FILE)
    first, was = _read(path)
    now = yaml_file.read(config.to_yaml())[0]
    if was is not None and _without_choice(was) == _without_choice(now):
        step = first
    elif was is not None and first < step:
        with open(path, encoding="utf-8") as file:
            text = _HELD.sub("", file.read(), count=1).lstrip()
        _write(_next_file(directory, first), f"from step {first} to step {step}", text)
    _write(path, f"from step {step} on", config.to_yaml())


def _files(directory: str) -> list[str]:
    """Returns the files of settings, the earliest first."""
    names = filter(_EARLIER.fullmatch, os.listdir(directory) if os.path.isdir(directory) else ())
    return [os.path.join(directory, name) for name in [*sorted(names, key=_number_of), PARAMS_FILE]]


def _number_of(name: str) -> int:
    """Returns the number in the name of a file of earlier settings; 0 for another file."""
    match = _EARLIER.fullmatch(name)
    return int(match[1]) if match else 0


def _next_file(directory: str, first: int) -> str:
    """Returns where settings go that held from step `first` on.

    They may be there already, of a run that died between the two files.
    """
    *earlier, _ = _files(directory)
    if earlier and _read(earlier[-1])[0] == first:
        return earlier[-1]
    number = 1 + _number_of(os.path.basename(earlier[-1])) if earlier else 1
    return os.path.join(directory, f"params.{number}.yaml")


def _read(path: str) -> tuple[int, Mapping[str, Any] | None]:
    """Returns from which step on settings held, 0 where it is not said; None for no settings."""
    if not os.path.isfile(path):
        return 0, None
    settings, problems = yaml_file.read_file(path)
    with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8") as file:
        held = _HELD.match(file.readline())
        return int(held[1]) if held else 0, None if problems else settings
    return 0, None


def _without_choice(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings without `trainer.resume`, which is no difference between two runs."""
    return {**settings, "trainer": {**settings.get("trainer", {}), "resume": None}}


def _write(path: str, held: str, text: str) -> None:
    write_whole(path, f"# The settings of this run {held}.\n{text}")
