"""The options `--import` and `--experiment`, which several commands have."""

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import ExperimentConfig
from optimization.training.errors import TrainingError
from optimization.training.imports import import_module, quiet_libraries, told
from optimization.training.registries import experiment_names, get_experiment

modules_option = click.option(
    "--import",
    "modules",
    metavar="MODULE",
    multiple=True,
    help="Import a module that registers types, tasks or experiments; may be repeated.",
)
experiment_option = click.option(
    "--experiment",
    metavar="NAME",
    help="Read the whole of each file, over the experiment that is registered as NAME.",
)


def check_registered() -> None:
    """Refuses to look for an experiment where none is registered.

    Raises:
        click.BadParameter: Saying what registers one.
    """
    if not experiment_names():
        message = "no experiment is registered; --import the module that registers it"
        raise click.BadParameter(message, param_hint="--import")


def load(modules: Sequence[str], name: str | None) -> ExperimentConfig | None:
    """Imports modules, and returns the experiment of a name; None for no name.

    Raises:
        click.BadParameter: If a module can't be imported, or there is no such experiment.
    """
    if os.getcwd() not in sys.path:  # As `python -m` has it, and the script of a command has not.
        sys.path.insert(0, os.getcwd())
    hint = "--experiment"
    with quiet_libraries() if modules else contextlib.nullcontext():
        try:
            for module in modules:
                hint = "--import"
                import_module(module)
            hint = "--experiment"
            if name is None:
                return None
            check_registered()
            return get_experiment(name)
        except click.BadParameter:
            raise
        except (TrainingError, ConfigError) as error:
            raise click.BadParameter(str(error), param_hint=hint) from None
        except Exception as error:
            text = f"the experiment {name!r} fails: {told(error)}"
            raise click.BadParameter(text, param_hint=hint) from None
