"""`results.json`: what came of a training, for programs and for the tables of sweeps."""

import json
import math
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from optimization._version import __version__
from optimization.training.whole_files import write_whole

RESULTS_FILE = "results.json"
_PACKAGES = ("keras", "tensorflow", "numpy")


def read_results(directory: str) -> dict[str, Any] | None:
    """Returns what `results.json` holds; None where there is none.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        with open(os.path.join(directory, RESULTS_FILE), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def seconds_of(directory: str) -> float:
    """Returns how long the processes before have trained; 0 where that is not known."""
    try:
        return (read_results(directory) or {}).get("seconds", 0.0)
    except (ValueError, AttributeError):
        return 0.0


def update_results(directory: str, values: Mapping[str, Any]) -> None:
    """Sets values in `results.json`; others, as those of a sweep, stay as they are."""
    try:
        before = read_results(directory)
    except ValueError:  # It is of no use to anyone.
        before = None
    write_json(os.path.join(directory, RESULTS_FILE), {**(before or {}), **values})


def write_json(path: str, value: Any) -> None:
    """Writes a file as a whole, with null for numbers that JSON has not."""
    write_whole(path, json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False))


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide about results."""
    found = {"python": sys.version.partition(" ")[0], "optimizer-factory": __version__}
    return found | {name: metadata.version(name) for name in _PACKAGES}


def finite(value: Any) -> Any:
    """Returns a value with null for numbers that JSON has not: infinite ones and NaN."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
