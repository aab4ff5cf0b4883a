"""Layers of settings, from files and flags, applied in order; the later one wins."""

import copy
import os
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from optimization.configs import yaml_file
from optimization.configs.base import PYTHON, Change, Config, commit
from optimization.configs.errors import ConfigError, Origin, Problem, warn
from optimization.configs.yaml_file import SourcedDict

ConfigT = TypeVar("ConfigT", bound=Config)

_ASSIGNMENT = re.compile(r"\s*[A-Za-z_][\w.]*\s*=")
_FILE = re.compile(r"[^\s{}=]+\.(ya?ml|json)", re.IGNORECASE)
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def read_override(text: str, flag: str = "--params_override") -> tuple[SourcedDict, list[Problem]]:
    """Reads one value of a `--params_override` flag, as far as it can be read.

    Args:
        text: `a.b=1,c.d=[1,2]`, or YAML or JSON text, or the path of a YAML file. In the first
            form values are YAML: a comma inside brackets or quotes belongs to the value.
        flag: What to call it in messages.

    Returns:
        The settings, nested, each of which remembers where it was written; and the problems.
    """
    if _FILE.fullmatch(text.strip()) or os.path.isfile(text.strip()):
        return yaml_file.read_file(text.strip())
    if not _ASSIGNMENT.match(text):
        return yaml_file.read_mapping(text, f"{flag} {text.strip()!r}")
    result = SourcedDict()
    problems: list[Problem] = []
    for assignment in _split(text):
        problems += _assign(result, assignment, flag)
    return result, problems


def parse_override(text: str, flag: str = "--params_override") -> SourcedDict:
    """Reads one value of a `--params_override` flag; see `read_override`.

    Raises:
        ConfigError: With every mistake.
    """
    result, problems = read_override(text, flag)
    if problems:
        raise ConfigError(problems)
    return result


def _split(text: str) -> list[str]:
    """Splits at the commas that are outside of quotes and brackets."""
    parts, start, closing, quote, previous = [], 0, [], "", ","
    characters = iter(enumerate(text))
    for index, char in characters:
        if quote:
            escapes = char == "\\" if quote == '"' else text.startswith("''", index)
            if escapes:
                next(characters, None)
            elif char == quote:
                quote = ""
        elif char in "'\"" and previous in "=,:[{(":  # elsewhere it is an apostrophe
            quote = char
        elif char in _CLOSING:
            closing.append(_CLOSING[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == "," and not closing:
            parts.append(text[start:index])
            start = index + 1
        previous = char if not char.isspace() else previous
    return [*parts, text[start:]]


def _assign(result: SourcedDict, assignment: str, flag: str) -> list[Problem]:
    path, equals, text = (part.strip() for part in assignment.partition("="))
    origin = Origin(f"{flag} {assignment.strip()!r}")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", path):
        return [Problem("syntax", "", "expected `path.to.value=value`", origin)]
    if not text:
        return [Problem("syntax", path, "no value; write `null` or `''`", origin)]
    value, problems = yaml_file.read(text, str(origin))
    if problems:
        return [problem._replace(path=path, origin=origin) for problem in problems]
    *parents, name = path.split(".")
    for parent in parents:
        child = result.get(parent)
        if parent in result and not isinstance(child, SourcedDict):
            return [
                Problem("conflict", path, f"{parent!r} was set to a plain value before", origin)
            ]
        if child is None:
            result.put(parent, child := SourcedDict(), origin)
        result = child
    if name in result:
        return [Problem("syntax", path, "is set twice in one override", origin)]
    result.put(name, value, origin)
    return []


def layered(
    base: ConfigT, layers: Iterable[Mapping], path: str | None = None
) -> tuple[ConfigT, list[Problem]]:
    """Applies layers of settings to a copy of `base`, without validating the whole.

    Args:
        base: The config to start from.
        layers: Mappings, or the `SourcedDict`s of files and flags; later ones win.
        path: The dotted path of the config in its file, for messages.

    Returns:
        A new config, with all that was right, and the problems of all that was not.
    """
    config = copy.deepcopy(base)
    config._set_locked(False)
    if path is not None:
        config._move(path)
    problems: list[Problem] = []
    for layer in layers:
        changes: list[Change] = []
        config._plan(layer, PYTHON, problems, changes)
        commit(changes)
    return config, problems


def findings(config: Config, problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Adds what is wrong with the whole to the problems of its layers.

    Returns:
        All errors, and the warnings. A value that is wrong is not reported as missing too, and
        nothing is where a layer could not be read in full.
    """
    reported = {problem.path for problem in problems}
    unread = any(problem.code == "syntax" for problem in problems)
    found, doubts = config.problems()
    errors = [
        problem
        for problem in found
        if problem.path not in reported and not (unread and problem.code == "missing")
    ]
    return problems + errors, doubts


def settle(config: ConfigT, problems: Iterable[Problem]) -> ConfigT:
    """Returns `config` if it is right as a whole, and warns of what is doubtful.

    Args:
        config: The config with all of its layers.
        problems: What is known to be wrong already.

    Raises:
        ConfigError: Every mistake of every layer, and of the whole.
    """
    errors, doubts = findings(config, list(problems))
    if errors:
        raise ConfigError(errors)
    for doubt in doubts:
        warn(doubt)
    return config


def resolve(base: ConfigT, layers: Iterable[Mapping], problems: Iterable[Problem] = ()) -> ConfigT:
    """Applies layers of settings to a copy of `base` and validates the result.

    Args:
        base: The config to start from.
        layers: Mappings, or the `SourcedDict`s of files and flags; later ones win.
        problems: What is known to be wrong already, such as a file that cannot be read.

    Returns:
        A new config.

    Raises:
        ConfigError: Every mistake of every layer, and of the result.
    """
    config, found = layered(base, layers)
    return settle(config, [*problems, *found])


def read_layers(
    config_files: Iterable[str | os.PathLike] = (), overrides: Iterable[str] = ()
) -> tuple[list[SourcedDict], list[Problem]]:
    """Reads `--config_file` and `--params_override` flags, in this order.

    Returns:
        The layers, as far as they can be read, and the problems.
    """
    read = [yaml_file.read_file(path) for path in config_files]
    read += [read_override(text) for text in overrides]
    return [layer for layer, _ in read], [problem for _, found in read for problem in found]
