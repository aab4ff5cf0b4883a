"""The argument `FILES`, and how each file is read."""

import glob
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import click

from optimization.cli.command import argument
from optimization.configs import yaml_file
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import ConfigError, Origin, Problem
from optimization.configs.experiment_config import ExperimentConfig, TrainerConfig
from optimization.configs.experiment_file import surroundings
from optimization.configs.layers import findings, layered, of_the_layers
from optimization.configs.optimization_config import OptimizationConfig, optimization_section

files_argument = argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(),
    help="YAML files, or patterns of them such as 'configs/**/*.yaml'.",
)


def matching(patterns: Iterable[str]) -> list[str]:
    """Returns the files that names and patterns mean, each once; a name that is no file stays."""
    found: dict[str, None] = {}
    for pattern in patterns:
        found |= dict.fromkeys(sorted(glob.glob(pattern, recursive=True)) or [pattern])
    return list(found)


class File(NamedTuple):
    """What a file says that has no errors.

    Attributes:
        config: Its optimization section.
        doubts: What is doubtful about it.
        trainer: Its trainer section; the defaults where it has none.
        experiment: The whole of it over an experiment; None where it is read alone.
    """

    config: OptimizationConfig
    doubts: list[Problem]
    trainer: TrainerConfig
    experiment: ExperimentConfig | None = None


def read(
    path: str, experiment: ExperimentConfig | None = None
) -> tuple[OptimizationConfig, list[Problem]]:
    """Reads the optimization part of a file; returns it and what is doubtful about it.

    Without an experiment, an experiment file may lack a `type` or another value that is required,
    since the registered experiment, on which the file is layered, may set it; that is reported
    and is no error. With one, the whole file is read over it, its task too, as the trainer does;
    what is doubtful includes what keeps the trainer from its usual mode. Steps are numbers where
    the file, or the experiment, says how long is trained.

    Raises:
        ConfigError: Every mistake of the file.
    """
    file = read_whole(path, experiment)
    return file.config, file.doubts


def sized(config: OptimizationConfig, length: TrainingLength, path: str) -> OptimizationConfig:
    """Returns a copy with steps as numbers; a length that the file says counts, which is told."""
    own = config._train_steps
    if own is not None and length.train_steps not in (None, own):
        print(f"{path}: has `train_steps` {own}, which counts", file=sys.stderr)
    return config.sized(length._replace(train_steps=own or length.train_steps))[0]


def read_whole(path: str, experiment: ExperimentConfig | None = None) -> File:
    """Reads a file as `read` does, with its trainer section, and over an experiment its task."""
    file = _alone(path) if experiment is None else _over(experiment, path)
    doubts = [doubt._replace(origin=doubt.origin or Origin(path)) for doubt in file.doubts]
    return file._replace(doubts=doubts)


def _alone(path: str) -> File:
    params, unread = yaml_file.read_file(path)
    if not params and not unread:
        raise ConfigError([Problem("missing", "", "is empty: it sets nothing", Origin(path))])
    try:
        section, place = optimization_section(params, path)
    except ConfigError as error:
        raise ConfigError(unread or [*error.problems, *surroundings(params)]) from None
    config, problems = layered(OptimizationConfig(), [section], place)
    if place:
        problems += surroundings(params)
    # What a duration takes and the file does not say, the experiment must say.
    values = params.get("trainer")
    trainer, _ = layered(TrainerConfig(), [values if isinstance(values, Mapping) else {}])
    trainer._move("trainer")
    config, unsized = config.sized(trainer.training_length())
    problems += [problem for problem in unsized if problem.code != "missing"]
    found, doubts = findings(config, [*unread, *problems])
    found = [problem._replace(origin=problem.origin or Origin(path)) for problem in found]
    errors = [problem for problem in found if not place or problem.code != "missing"]
    if errors:
        raise ConfigError(errors)
    message = "is not set in this file; the registered experiment must set it"
    doubts += [problem._replace(code="incomplete", message=message) for problem in found]
    return File(config, doubts, trainer)


def sweep_problems(path: str) -> list[Problem] | None:
    """Returns what is wrong with the file of a sweep by itself; None of another file."""
    params, unread = yaml_file.read_file(path)
    if "parameters" not in params:
        return None
    from optimization.configs.sweep_space import read_sweep

    _, errors = read_sweep(params, unread, path)
    return [error._replace(origin=error.origin or Origin(path)) for error in errors]


def _over(base: ExperimentConfig, path: str) -> File:
    params, unread = yaml_file.read_file(path)
    config, problems = layered(base, [params])
    errors, doubts = findings(config, [*unread, *problems])
    if errors:
        raise ConfigError(error._replace(origin=error.origin or Origin(path)) for error in errors)
    doubts = of_the_layers(doubts)
    doubts += [p._replace(code="mode") for p in config.problems_in_mode("train_and_eval")]
    sized, _ = config.told_trainer().sized_optimizer_config()
    return File(sized, doubts, config.trainer, config)
