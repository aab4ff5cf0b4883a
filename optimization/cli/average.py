"""`optfactory average`: the mean of the last checkpoints of a run, as weights to evaluate."""

import click

from optimization import extras
from optimization.cli.command import Command, WholeNumber, argument

_LAST = "How many checkpoints, the latest ones."
_OUTPUT = "The directory to write to; left out, average-N in that of the run."


@click.command(cls=Command)
@argument("model_dir", metavar="DIR", type=click.Path(), help="The directory of the run.")
@click.option("--last", type=WholeNumber(1), metavar="N", default=5, help=_LAST)
@click.option("--output", "-o", type=click.Path(), metavar="DIR", help=_OUTPUT)
def command(model_dir: str, last: int, output: str | None) -> int:
    """Average the weights of the last checkpoints of a run.

    Each counts as much as any other. The result is a checkpoint of weights alone, which the modes
    eval and export of `train` take as --checkpoint. Averaged is the model as it trains, not the
    averages of an `ema` section.
    """
    from optimization.training.binary import reporting
    from optimization.training.imports import quiet_libraries

    def average() -> None:
        with quiet_libraries():
            extras.require("tensorflow")
        from optimization.training.averaging import average_checkpoints

        path = average_checkpoints(model_dir, last, output)
        print(f"written: {path}, the mean of {last} checkpoints; --checkpoint={path} takes it")

    return reporting(average)
