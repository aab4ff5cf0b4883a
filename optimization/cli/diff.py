"""`optfactory diff`: what differs between two files."""

from collections.abc import Sequence
from typing import Any

import click

from optimization.cli.command import Command, argument
from optimization.cli.experiments import experiment_option, load, modules_option
from optimization.cli.layers import AnyConfig, length_options, read_layers
from optimization.cli.output import format_option, print_json
from optimization.cli.reports import tell
from optimization.configs.base import plain
from optimization.configs.comparing import difference, optimization_of
from optimization.configs.difference import ABSENT, Change, CurveChange, Difference
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import Origin
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.optimization_config import OptimizationConfig


@click.command(cls=Command)
@argument("before", metavar="A", type=click.Path(), help="A YAML file.")
@argument("after", metavar="B", type=click.Path(), help="Another YAML file.")
@modules_option
@experiment_option
@length_options
@format_option
def command(
    before: str,
    after: str,
    modules: Sequence[str],
    experiment: str | None,
    length: TrainingLength,
    form: str,
) -> int:
    """Compare two files as they train. Exit code 1 if anything differs, as diff has it."""
    base = load(modules, experiment)
    sides = [read_layers([path], None, base, length) for path in (before, after)]
    for side in sides:
        tell(side.doubts)
    found = _compared(sides[0].config, sides[1].config, length)
    if form == "json":
        print_json(_as_json(found))
    else:
        print(found)
    return int(bool(found))


def _compared(before: AnyConfig, after: AnyConfig, length: TrainingLength) -> Difference:
    """Compares two configs; of an experiment beside a section, the section alone."""
    wholes = [config for config in (before, after) if isinstance(config, ExperimentConfig)]
    if len(wholes) != 1:
        return difference(before, after, length)
    return difference(_alone(before), _alone(after), wholes[0].told_trainer().training_length())


def _alone(config: AnyConfig) -> OptimizationConfig:
    """Returns a copy of the optimization section that is no part of an experiment."""
    section = optimization_of(config).replace()
    section._move("")
    return section


def _as_json(found: Difference) -> dict[str, Any]:
    return {
        "differ": bool(found),
        "values": [_change(change) for change in found.values],
        "curves": [_curve(curve) for curve in found.curves],
        "notes": list(found.notes),
    }


def _change(change: Change) -> dict[str, Any]:
    sides = {"before": (change.before, change.before_at), "after": (change.after, change.after_at)}
    return {"path": change.path} | {
        name: None if value is ABSENT else {"value": plain(value), **_place(origin)}
        for name, (value, origin) in sides.items()
    }


def _place(origin: Origin | None) -> dict[str, Any]:
    return {"file": origin and origin.source, "line": origin and origin.line}


def _curve(curve: CurveChange) -> dict[str, Any]:
    return {**curve._asdict(), "size": curve.size}
