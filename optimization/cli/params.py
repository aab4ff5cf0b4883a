"""`optfactory params`: what each parameter of a model is trained with."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from optimization import extras
from optimization.cli.command import Command, argument
from optimization.cli.experiments import experiment_option, load, modules_option
from optimization.cli.files import read, sized
from optimization.cli.layers import length_options
from optimization.cli.output import format_option, print_json
from optimization.configs.durations import TrainingLength
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.text_files import NotReadError, check_regular, read_text
from optimization.group_rows import group_rows
from optimization.matching.group_table import GroupRow, format_group_table
from optimization.matching.names import read_names, read_safetensors
from optimization.optimizer_factory import OptimizerFactory
from optimization.training.errors import TrainingError

_FILE = "A YAML file: an optimization section, or an experiment's."
_NAMES = "A list instead of a model: a path a line, its shape after it if need be; - for stdin."
_WEIGHTS = "A .safetensors file (or its .index.json), or a .keras file, instead of an experiment."


@click.command(cls=Command)
@argument("file", metavar="FILE", type=click.Path(), help=_FILE)
@modules_option
@experiment_option
@click.option("--names", type=click.Path(), metavar="LIST", help=_NAMES)
@click.option("--weights", type=click.Path(), metavar="FILE", help=_WEIGHTS)
@click.option("--variables", is_flag=True, help="A line for each one.")
@length_options
@format_option
def command(
    file: str,
    modules: Sequence[str],
    experiment: str | None,
    names: str | None,
    weights: str | None,
    variables: bool,
    length: TrainingLength,
    form: str,
) -> int:
    """Show the group of each parameter of a model: its learning rate, decay, average.

    The model is that of an experiment, or a list of names. Rules that match nothing are errors,
    as in training.
    """
    if (experiment is not None) + (names is not None) + (weights is not None) != 1:
        raise click.BadParameter("give one of --experiment, --names and --weights")
    if experiment is not None and any(length):
        raise click.BadParameter("the experiment says how long is trained; leave the length out")
    from optimization.training.binary import reporting

    load(modules, experiment)

    def show() -> None:
        if experiment is not None:
            rows = _of_experiment(file, experiment)
        elif weights is not None and weights.endswith(".keras"):
            rows = _of_keras(file, weights, length)
        else:
            rows = _of_names(file, names, weights, length)
        if form == "json":
            print_json([_plain(row) for row in rows])
        else:
            print(format_group_table(rows, variables))

    return reporting(show)


def _of_experiment(file: str, experiment: str) -> list[GroupRow]:
    from optimization.training.binary import resolve_flags
    from optimization.training.dry_run import built
    from optimization.training.imports import quiet_libraries

    config = resolve_flags(experiment, [file])
    with quiet_libraries():
        extras.require("tensorflow")
    from optimization.keras.reported import innermost

    optimizer = innermost(built(config)[-1])
    if not hasattr(optimizer, "group_table"):
        raise TrainingError(f"{experiment} makes a {type(optimizer).__name__}, without groups")
    return optimizer.group_table()


def _of_keras(file: str, path: str, length: TrainingLength) -> list[GroupRow]:
    """Returns the rows of a saved model. The file names its layers, but not their variables."""
    from optimization.training.imports import quiet_libraries, told

    config = _config(file, length)
    with _readable(path):
        check_regular(path)  # before Keras, which takes seconds to load
        open(path, "rb").close()
    with quiet_libraries():
        keras = extras.require("keras")
        try:
            model = keras.models.load_model(path, compile=False)
        except Exception as error:  # as the damage happens to be
            hint = "; --import the module that has its layers" if "registered" in str(error) else ""
            raise TrainingError(f"{path} cannot be loaded: {told(error)}{hint}") from None
    factory = OptimizerFactory(config)
    with _of_file(file):
        optimizer = factory.build_optimizer(factory.build_learning_rate(), model=model)
    return optimizer.group_table()


def _of_names(
    file: str, names: str | None, weights: str | None, length: TrainingLength
) -> list[GroupRow]:
    with _readable(weights or str(names)):
        if weights is not None:
            shapes = read_safetensors(weights)
        elif names == "-":
            shapes = read_names(sys.stdin, "stdin")
        else:
            shapes = read_names(read_text(str(names)).splitlines(), str(names))
    config = _config(file, length)
    with _of_file(file):
        return group_rows(config, shapes)


def _config(file: str, length: TrainingLength) -> OptimizationConfig:
    """Returns the optimization section of a file, which must be complete."""
    config = sized(read(file)[0], length, file)
    config.validate()
    return config


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Has what is wrong with a list of names or with weights be told in words."""
    try:
        yield
    except UnicodeDecodeError:
        raise TrainingError(f"{path} is not UTF-8 text") from None
    except NotReadError as error:
        raise TrainingError(f"{path} {error}") from None
    except ValueError as error:
        raise TrainingError(str(error)) from None
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _of_file(file: str) -> Iterator[None]:
    """Has an error about rules that match nothing say which file has them."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"{file}: {error}") from error


def _plain(row: GroupRow) -> dict[str, Any]:
    """Returns a row for JSON, with null for a rate that is not known."""
    values = dataclasses.asdict(row)
    rate = values["learning_rate"]
    return {**values, "learning_rate": None if rate != rate else rate}
