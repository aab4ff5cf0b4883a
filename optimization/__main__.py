"""The command line: `python -m optimization validate FILES...`."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from optimization.configs import yaml_file
from optimization.configs.errors import ConfigError, Origin, Problem
from optimization.configs.layers import findings, layered
from optimization.configs.optimization_config import OptimizationConfig, optimization_section


def validate(path: str) -> tuple[OptimizationConfig, list[Problem]]:
    """Reads the optimization part of one file.

    In an experiment file a oneof may lack its `type`, since the registered experiment, on which
    the file is layered, may set it; that is reported and is no error.

    Returns:
        The config, and what is doubtful about it.

    Raises:
        ConfigError: All that is wrong.
    """
    params, unread = yaml_file.read_file(path)
    try:
        section, place = optimization_section(params, path)
    except ConfigError as error:
        raise ConfigError(unread or error.problems) from None
    config, problems = layered(OptimizationConfig(), [section], place)
    found, doubts = findings(config, [*unread, *problems])
    untyped = [
        problem.path.removesuffix("type") for problem in found if _lacks_type(problem, place)
    ]
    doubts = [doubt for doubt in doubts if not doubt.path.startswith(tuple(untyped))]
    problems = []
    for problem in found:
        problem = problem._replace(origin=problem.origin or Origin(path))
        if _lacks_type(problem, place):
            message = "is not set in this file; the registered experiment must set it"
            doubts.append(problem._replace(code="incomplete", message=message))
        else:
            problems.append(problem)
    if problems:
        raise ConfigError(problems)
    return config, doubts


def _lacks_type(problem: Problem, place: str) -> bool:
    return bool(place) and problem.code == "missing" and problem.path.endswith(".type")


def _summary(config: OptimizationConfig) -> str:
    parts = [
        f"{name} {section.type}"
        for name in ("optimizer", "learning_rate", "warmup")
        if (section := getattr(config, name)).type is not None
    ]
    return ", ".join([*parts, "ema"] if config.ema else parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m optimization", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "validate", help="check the optimization part of YAML files; exit 1 if any is wrong"
    )
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module that registers types of its own; may be repeated",
    )
    options = parser.parse_args(arguments)
    for module in options.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            parser.error(f"--import {module}: {error}")
    failed = False
    for path in options.files:
        try:
            config, doubts = validate(path)
        except ConfigError as error:
            failed = True
            print(f"{error}", file=sys.stderr)
            continue
        for doubt in doubts:
            print(f"{doubt} (warning)", file=sys.stderr)
        print(f"{path}: fine ({_summary(config)})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
