"""`optfactory plot`: draws learning rates, and other hyperparameters, over training."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from optimization.cli.command import Command
from optimization.cli.experiments import experiment_option, load, modules_option
from optimization.cli.files import files_argument, matching, read, sized
from optimization.cli.layers import length_options
from optimization.cli.output import writing
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import ConfigError, Origin, Problem
from optimization.extras import MissingExtraError

if TYPE_CHECKING:
    from optimization.configs.experiment_config import ExperimentConfig
    from optimization.plots.curves import Line
    from optimization.plots.picture import Picture


@click.command(cls=Command)
@files_argument
@click.option(
    "--output",
    "-o",
    type=click.Path(),
    metavar="PICTURE",
    help="Write x.png, x.svg, x.html (hover and zoom) or x.csv (exact values); left out, draw in "
    "the terminal.",
)
@click.option(
    "--what",
    metavar="NAME",
    default="learning_rate",
    help="The learning rate, or a number of the optimizer: weight_decay.",
)
@click.option(
    "--group",
    "groups",
    metavar="NAME",
    multiple=True,
    help="A group of `param_groups`, `default`, `layer L-2` (by `layer_decay`, two below the "
    "head), or `all`; may be repeated.",
)
@click.option("--log", is_flag=True, help="Draw heights logarithmically.")
@click.option(
    "--range", "steps", metavar="FROM:TO", default=":", help="Draw these optimizer steps."
)
@length_options
@modules_option
@experiment_option
def command(
    files: Sequence[str],
    output: str | None,
    what: str,
    groups: Sequence[str],
    log: bool,
    steps: str,
    length: TrainingLength,
    modules: Sequence[str],
    experiment: str | None,
) -> int:
    """Draw the learning rate over training, of several files in one picture.

    Marked are the ends of warmup, decay and training, and boundaries. Files with errors are told
    as `validate` tells them, with exit code 1, and the others are drawn.
    """
    from optimization.plots.drawing import picture_of_lines
    from optimization.plots.picture import renderer

    limits = _limits(steps)
    if output is not None:
        try:
            renderer(output)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--output") from None
    base = load(modules, experiment)
    paths = matching(files)
    lines: dict[str, Sequence[Line]] = {}
    for path, name in zip(paths, _names(paths), strict=True):
        try:
            lines[name] = _lines(path, base, length, what, groups)
        except ConfigError as error:
            print(error, file=sys.stderr)
    if lines:
        try:
            picture = picture_of_lines(lines, what.replace("_", " "), log, limits)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 1
        if not _shown(picture, output):
            return 1
    return int(len(lines) < len(paths))


def _limits(text: str) -> tuple[int | None, int | None]:
    first, colon, last = text.partition(":")
    try:
        limits = int(first) if first else None, int(last) if last else None
    except ValueError:
        colon = ""
    if not colon:
        message = f"expected FROM:TO, such as 0:1000, :1000 or 500:, got {text!r}"
        raise click.BadParameter(message, param_hint="--range")
    if (limits[0] or 0) < 0 or (limits[1] is not None and limits[1] <= (limits[0] or 0)):
        message = f"must go from a step >= 0 to a later one, got {text!r}"
        raise click.BadParameter(message, param_hint="--range")
    return limits


def _names(paths: Sequence[str]) -> list[str]:
    """Returns what to call each file: its name, with folders where two have the same."""
    counts = Counter(map(os.path.basename, paths))
    return [name if counts[name := os.path.basename(path)] == 1 else path for path in paths]


def _lines(
    path: str,
    base: "ExperimentConfig | None",
    length: TrainingLength,
    what: str,
    groups: Sequence[str],
) -> "list[Line]":
    from optimization.plots.curves import lines_of

    config, _ = read(path, base)
    config = sized(config, length, path)
    try:
        return lines_of(config, what, groups)
    except ConfigError as error:
        raise ConfigError(
            problem._replace(origin=problem.origin or Origin(path), message=_with_flag(problem))
            for problem in error.problems
        ) from None


def _with_flag(problem: Problem) -> str:
    """Returns the message; where a length is not known, with the option that gives it."""
    message = problem.message
    for name in TrainingLength._fields:
        flag = f"--{name.replace('_', '-')} N"
        unknown = f"takes `{name}`, which is not known: give"
        message = message.replace(f"{unknown} it", f"{unknown} `{flag}`")
    return message


def _shown(picture: "Picture", output: str | None) -> bool:
    """Prints or writes a picture; returns whether what draws it is there."""
    try:
        if output is None:
            print(picture)
            return True
        with writing(output):
            picture.save(output)
    except MissingExtraError as error:
        print(f"{error}; `-o x.html`, `.svg` and `.csv` work without", file=sys.stderr)
        return False
    print(picture.summary())
    print(f"written: {output}")
    return True
