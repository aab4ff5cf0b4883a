"""Applies layers of settings, from files and flags, in order; a later one wins."""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from optimization.configs import yaml_file
from optimization.configs.base import Config
from optimization.configs.errors import ConfigError, Problem, warn
from optimization.configs.overrides import read_override
from optimization.configs.planning import Plan
from optimization.configs.yaml_file import SourcedDict

ConfigT = TypeVar("ConfigT", bound=Config)


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
        plan = Plan()
        plan.add(config, layer)
        plan.commit()
        problems += plan.problems
    return config, problems


def findings(config: Config, problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Checks the whole config, and adds what is wrong with it to the problems of its layers.

    Returns:
        All errors, and the warnings. A value that is wrong is not reported as missing too, nor what
        is in a section that is none, and nothing is where a layer could not be read in full.
    """
    reported = {problem.path for problem in problems}
    unread = any(problem.code == "syntax" for problem in problems)
    found, doubts = config.problems()
    errors = [
        problem
        for problem in found
        if problem.path not in reported
        and not (
            problem.code == "missing"
            and (unread or not reported.isdisjoint(_sections_of(problem.path)))
        )
    ]
    return problems + errors, doubts


def of_the_layers(doubts: Iterable[Problem]) -> list[Problem]:
    """Returns the warnings but for branches that an experiment in Python code sets and leaves."""
    return [doubt for doubt in doubts if doubt.code != "unselected" or doubt.origin is not None]


def _sections_of(path: str) -> Iterator[str]:
    """Yields the path of each section that the value at `path` is in."""
    while path := path.rpartition(".")[0]:
        yield path


def settle(config: ConfigT, problems: Iterable[Problem]) -> ConfigT:
    """Returns `config` if nothing is wrong with it, and warns of what is doubtful.

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
    config._tell(doubts)
    return config


def resolve(base: ConfigT, layers: Iterable[Mapping], problems: Iterable[Problem] = ()) -> ConfigT:
    """Applies layers of settings to a copy of `base` and validates the result.

    >>> from optimization import OptimizationConfig
    >>> sgd = {"optimizer": {"type": "sgd"}, "learning_rate": {"type": "constant"}}
    >>> config = resolve(OptimizationConfig(sgd), [{"optimizer": {"sgd": {"momentum": 0.9}}}])
    >>> config.optimizer.sgd.momentum
    0.9

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

    >>> read_layers(overrides=["optimizer.type=sgd", "optimizer.sgd.momentum=0.9"])
    ([{'optimizer': {'type': 'sgd'}}, {'optimizer': {'sgd': {'momentum': 0.9}}}], [])

    Returns:
        The layers, as far as they can be read, and the problems.
    """
    read = [yaml_file.read_file(path) for path in config_files]
    read += [read_override(text) for text in overrides]
    return [layer for layer, _ in read], [problem for _, found in read for problem in found]
