"""`optfactory find-lr`: the learning rate range test on an experiment."""

import os
from collections.abc import Sequence

import click

from optimization import extras
from optimization.cli.command import Command, WholeNumber, argument
from optimization.cli.experiments import load, modules_option
from optimization.cli.output import writing

_FILE = "A YAML file of settings that go over those of the experiment."
_OUTPUT = "Also write a picture (.png, .svg, .pdf) or a table (.csv)."


@click.command(cls=Command)
@argument("file", metavar="[FILE]", required=False, type=click.Path(), help=_FILE)
@click.option("--experiment", metavar="NAME", required=True, help="The registered experiment.")
@modules_option
@click.option("--lowest", type=float, metavar="RATE", default=1e-7, help="The first rate.")
@click.option("--highest", type=float, metavar="RATE", default=10.0, help="The last rate.")
@click.option("--steps", type=WholeNumber(3), metavar="N", default=100, help="Training steps.")
@click.option(
    "--smoothing",
    type=float,
    metavar="FACTOR",
    default=0.9,
    help="Of the moving average of the loss, >= 0 and < 1.",
)
@click.option("--output", "-o", type=click.Path(), metavar="FILE", help=_OUTPUT)
def command(
    file: str | None,
    experiment: str,
    modules: Sequence[str],
    lowest: float,
    highest: float,
    steps: int,
    smoothing: float,
    output: str | None,
) -> int:
    """Find a learning rate: train with one that grows from step to step, until the loss diverges.

    The model is trained from its start, on its own data, with its own optimizer; nothing is kept.
    Printed are the loss at the rates, and the rates where it falls most steeply and where it is
    lowest, of which a tenth is safe.
    """
    from optimization.training.binary import reporting, resolve_flags
    from optimization.training.errors import TrainingError
    from optimization.training.imports import quiet_libraries

    load(modules, experiment)
    if not 0 < lowest < highest:
        message = f"must be above --lowest, and that above 0, got {lowest:g} to {highest:g}"
        raise click.BadParameter(message, param_hint="--highest")
    if not 0 <= smoothing < 1:
        message = f"must be >= 0 and < 1, got {smoothing:g}"
        raise click.BadParameter(message, param_hint="--smoothing")

    def find() -> None:
        config = resolve_flags(experiment, [file] if file else [], mode="train_and_eval")
        try:
            if output is not None:  # Before minutes are spent.
                _check(output)
            with quiet_libraries():
                extras.require("tensorflow")
            from optimization.training.finding import find_rate

            found = find_rate(
                config, lowest=lowest, highest=highest, steps=steps, smoothing=smoothing
            )
            print(found)
            if output is not None:
                with writing(output):
                    found.save(output)
                print(f"written: {output}")
        except ValueError as error:
            raise TrainingError(str(error)) from error

    return reporting(find)


def _check(output: str) -> None:
    """Refuses a file that could not be written in the end."""
    from optimization.range_test import checked_ending

    try:
        checked_ending(output)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--output") from None
    with writing(output):
        os.stat(os.path.dirname(output) or ".")
