"""`optfactory average`: the mean of the last checkpoints of a run, as weights to evaluate."""

from typing import Annotated

import typer

from optimization import extras

_LAST = "How many checkpoints, the latest ones."
_OUTPUT = "The directory to write to; left out, average-N in that of the run."


def command(
    model_dir: Annotated[str, typer.Argument(metavar="DIR", help="The directory of the run.")],
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, help=_LAST)] = 5,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help=_OUTPUT)
    ] = None,
) -> None:
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

    raise typer.Exit(reporting(average))
