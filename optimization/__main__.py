"""The command line: `python -m optimization validate FILES...`."""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence

from optimization.configs import yaml_file
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import ConfigError, Origin, Problem
from optimization.configs.experiment_config import ExperimentConfig, surroundings
from optimization.configs.layers import findings, layered, of_the_layers
from optimization.configs.optimization_config import OptimizationConfig, optimization_section
from optimization.training.errors import TrainingError
from optimization.training.imports import import_module, quiet_libraries, told
from optimization.training.registries import get_experiment


def validate(path: str) -> tuple[OptimizationConfig, list[Problem]]:
    """Reads the optimization part of one file; returns it and what is doubtful about it.

    An experiment file may lack a `type` or another value that is required, since the registered
    experiment, on which the file is layered, may set it; that is reported and is no error.
    """
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
    trainer = params.get("trainer")
    values = trainer if isinstance(trainer, Mapping) else {}
    lengths = [values.get(name) for name in ("train_steps", "steps_per_epoch")]
    length = TrainingLength(*(n if type(n) is int and n > 0 else None for n in lengths))
    config, unsized = config.sized(length)
    problems += [problem for problem in unsized if problem.code != "missing"]
    found, doubts = findings(config, [*unread, *problems])
    found = [problem._replace(origin=problem.origin or Origin(path)) for problem in found]
    errors = [problem for problem in found if not place or problem.code != "missing"]
    if errors:
        raise ConfigError(errors)
    message = "is not set in this file; the registered experiment must set it"
    doubts += [problem._replace(code="incomplete", message=message) for problem in found]
    return config, doubts


def validate_over(
    experiment: ExperimentConfig, path: str
) -> tuple[OptimizationConfig, list[Problem]]:
    """Reads a whole file, its task too, over `experiment`, as the trainer does.

    What is doubtful includes what keeps the trainer from its usual mode.
    """
    params, unread = yaml_file.read_file(path)
    config, problems = layered(experiment, [params])
    errors, doubts = findings(config, [*unread, *problems])
    if errors:
        raise ConfigError(error._replace(origin=error.origin or Origin(path)) for error in errors)
    doubts = of_the_layers(doubts)
    return config.trainer.optimizer_config, doubts + config.problems_in_mode("train_and_eval")


def _summary(config: OptimizationConfig) -> str:
    """Returns what the config selects, in brackets; "" if nothing."""
    parts = [
        f"{name} {section.type}"
        for name in ("optimizer", "learning_rate", "warmup")
        if (section := getattr(config, name)).type is not None
    ]
    parts += ["ema"] if config.ema else []
    return f" ({', '.join(parts)})" if parts else ""


def _loaded(modules: Sequence[str], name: str | None) -> tuple[ExperimentConfig | None, str]:
    """Imports `modules`; returns the experiment `name`, and what is wrong with any of them."""
    with quiet_libraries() if modules else contextlib.nullcontext():
        try:
            for module in modules:
                import_module(module)
            return get_experiment(name) if name is not None else None, ""
        except (TrainingError, ConfigError) as error:
            return None, str(error)
        except Exception as error:
            return None, f"the experiment {name!r} fails: {told(error)}"


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
        help="import a module that registers types, tasks or experiments; may be repeated",
    )
    command.add_argument(
        "--experiment",
        metavar="NAME",
        help="check the whole of each file, over the experiment that is registered as NAME",
    )
    options = parser.parse_args(arguments)
    experiment, message = _loaded(options.modules, options.experiment)
    if message:
        parser.error(message)
    failed = False
    for path in options.files:
        try:
            config, doubts = validate_over(experiment, path) if experiment else validate(path)
        except ConfigError as error:
            failed = True
            print(f"{error}", file=sys.stderr)
            continue
        for doubt in doubts:
            print(f"{doubt} (warning)", file=sys.stderr)
        print(f"{path}: fine{_summary(config)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
