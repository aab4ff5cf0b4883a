"""`optfactory find-lr`: the learning rate range test on an experiment."""

import os
from typing import Annotated

import typer

from optimization import extras
from optimization.cli.experiments import Modules, load
from optimization.cli.output import writing

_FILE = "A YAML file of settings that go over those of the experiment."
_OUTPUT = "Also write a picture (.png, .svg, .pdf) or a table (.csv)."


def command(
    experiment: Annotated[
        str, typer.Option("--experiment", metavar="NAME", help="The registered experiment.")
    ],
    file: Annotated[str | None, typer.Argument(metavar="FILE", help=_FILE)] = None,
    modules: Modules = None,
    lowest: Annotated[float, typer.Option(help="The first rate.")] = 1e-7,
    highest: Annotated[float, typer.Option(help="The last rate.")] = 10.0,
    steps: Annotated[int, typer.Option(min=3, help="Training steps.")] = 100,
    smoothing: Annotated[
        float, typer.Option(min=0, help="Of the moving average of the loss, < 1.")
    ] = 0.9,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help=_OUTPUT)
    ] = None,
) -> None:
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
        raise typer.BadParameter(message, param_hint="--highest")

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

    raise typer.Exit(reporting(find))


def _check(output: str) -> None:
    """Refuses a file that could not be written in the end."""
    from optimization.range_test import checked_ending

    try:
        checked_ending(output)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from None
    with writing(output):
        os.stat(os.path.dirname(output) or ".")
