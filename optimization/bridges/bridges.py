"""The libraries that `optfactory convert` knows: the one place in which they are listed."""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from optimization.bridges.draft import Draft
from optimization.configs.errors import ConfigError, Origin, Problem
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.yaml_file import SourcedDict

BRIDGES = {
    "garden": "TensorFlow Model Garden, an experiment file",
    "hf": "transformers, TrainingArguments",
    "timm": "timm, args.yaml of its train script",
    "keras": "Keras 3, a serialized optimizer or a .keras file",
    "torchtitan": "torchtitan, a TOML file",
    "lightning": "LightningCLI, its YAML file",
    "axolotl": "axolotl, its YAML file",
}
"""The libraries by name. The module of that name in this package has

    reads(mapping) -> bool      whether a mapping looks like one of the library
    convert(mapping, file, exact) -> Draft
    export(config) -> (values, findings)       where there is a way back
"""
TARGETS = {"hf": "TrainingArguments as JSON", "timm": "args.yaml"}
"""The libraries to which there is a way back, and what is written."""


def bridge(name: str) -> ModuleType:
    """Returns the module of a library."""
    return importlib.import_module(f"optimization.bridges.{name}")


def guess(mapping: Mapping[str, Any], file: str) -> str:
    """Returns the name of the library that a file is of, by its keys.

    Raises:
        ConfigError: If it looks like none of them, or like several.
    """
    found = [name for name in BRIDGES if bridge(name).reads(mapping)]
    if len(found) == 1:
        return found[0]
    looks = f"looks like {' and '.join(found)}" if found else "looks like none that is known"
    message = f"{looks}: say what it is by `--from {'|'.join(found or BRIDGES)}`"
    raise ConfigError([Problem("value", "", message, Origin(file))])


def check(name: str, mapping: Mapping[str, Any], file: str, called: str | None = None) -> None:
    """Refuses a file that looks like one of another library, and not like one of `name`.

    What it is not like is `called` so in the message, by its name unless that is given.

    Raises:
        ConfigError: Naming the library that it looks like.
    """
    if bridge(name).reads(mapping):
        return
    others = [other for other in BRIDGES if bridge(other).reads(mapping)]
    if others:
        message = f"looks like {' and '.join(others)}, not like {called or name}: "
        message += f"write `--from {others[0]}`"
        raise ConfigError([Problem("value", "", message, Origin(file))])


def convert(name: str, mapping: SourcedDict, file: str, exact: bool = False) -> Draft:
    """Returns our config of a mapping of the library `name`.

    Args:
        name: One of `BRIDGES`.
        mapping: What `files.read` returned.
        file: The file's name, for messages.
        exact: Whether a curve of which no type here has the formula is written as a table of its
            values, instead of as the nearest type.

    Raises:
        ConfigError: What is wrong with the source.
    """
    function: Callable[[SourcedDict, str, bool], Draft] = bridge(name).convert
    try:
        return function(mapping, file, exact)
    except ArithmeticError as error:
        message = f"its schedule can't be computed with these numbers: {error.args[-1]}"
        raise ConfigError([Problem("value", "", message, Origin(file))]) from None


def export(name: str, config: OptimizationConfig) -> tuple[dict[str, Any], list]:
    """Returns the settings of the library `name`, one of `TARGETS`, and what they can't say."""
    return bridge(name).export(config)
