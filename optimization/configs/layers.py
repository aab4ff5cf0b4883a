"""Applies layers of settings, from files and flags, in order; a later one wins."""

import copy
import itertools
import os
import re
from collections.abc import Iterable, Mapping
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
    """Applies layers to a copy of `base` that is called `path`, as far as they are right.

    Returns:
        The copy, not validated as a whole, and what is wrong with the layers.
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
    """Returns all errors, those of the layers and of the whole, and the warnings.

    A value that is wrong is not reported as missing too, nor a list in which something is, nor what
    is in a section that is none, and nothing is where a layer could not be read in full.
    """
    reported = {problem.path for problem in problems}
    elements = {path[: match.end()] for path in reported for match in re.finditer(r"\[", path)}
    unread = any(problem.code == "syntax" for problem in problems)
    found, doubts = config.problems()
    for problem in found:
        above = itertools.accumulate(problem.path.split(".")[:-1], "{}.{}".format)
        is_known = unread or not reported.isdisjoint(above) or f"{problem.path}[" in elements
        is_hidden = problem.code == "missing" and is_known
        if problem.path not in reported and not is_hidden:
            problems = [*problems, problem]
    return problems, doubts


def of_the_layers(doubts: Iterable[Problem]) -> list[Problem]:
    """Returns the warnings but for branches that an experiment in Python code sets and leaves."""
    return [doubt for doubt in doubts if doubt.code != "unselected" or doubt.origin is not None]


def settle(config: ConfigT, problems: list[Problem], again: bool = True) -> ConfigT:
    """Returns `config` if nothing is wrong, `problems` to begin with; warns of what is doubtful.

    Warnings are issued `again`; if not, only those of which nothing was told yet, and none of
    branches that are not selected, which concern whoever reads the files.
    """
    errors, doubts = findings(config, problems)
    if errors:
        raise ConfigError(errors)
    for doubt in doubts:
        if again or (doubt.code != "unselected" and str(doubt) not in config._told):
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

    Raises:
        ConfigError: Every mistake of every layer, and of the result.
    """
    config, found = layered(base, layers)
    return settle(config, [*problems, *found])


def read_layers(
    config_files: Iterable[str | os.PathLike] = (), overrides: Iterable[str] = ()
) -> tuple[list[SourcedDict], list[Problem]]:
    """Reads `--config_file` and `--params_override` flags, in this order, as far as they are right.

    >>> read_layers(overrides=["optimizer.type=sgd", "optimizer.sgd.momentum=0.9"])
    ([{'optimizer': {'type': 'sgd'}}, {'optimizer': {'sgd': {'momentum': 0.9}}}], [])
    """
    read = [yaml_file.read_file(path) for path in config_files]
    read += [read_override(text) for text in overrides]
    return [layer for layer, _ in read], [problem for _, found in read for problem in found]
