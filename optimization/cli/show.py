"""`optfactory show`: the config that files and overrides make, with everything filled in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from optimization.cli.command import Choice, Command, argument
from optimization.cli.experiments import experiment_option, load, modules_option
from optimization.cli.files import matching
from optimization.cli.layers import Layers, length_options, overrides_option, read_layers
from optimization.cli.output import print_json
from optimization.cli.reports import tell
from optimization.configs import yaml_file
from optimization.configs.comments import Comment, read_comments, write_comments
from optimization.configs.durations import TrainingLength
from optimization.configs.leaves import leaves
from optimization.configs.text_files import read_text


@click.command(cls=Command)
@argument(
    "files",
    metavar="[FILE]...",
    nargs=-1,
    type=click.Path(),
    help="YAML files; later ones win.",
)
@overrides_option
@modules_option
@experiment_option
@length_options
@click.option(
    "--defaults/--no-defaults", default=True, help="Values that are defaults too, or not."
)
@click.option(
    "--format",
    "form",
    type=Choice(["yaml", "json"]),
    default="yaml",
    help="How to print it.",
)
def command(
    files: Sequence[str],
    overrides: Sequence[str],
    modules: Sequence[str],
    experiment: str | None,
    length: TrainingLength,
    defaults: bool,
    form: str,
) -> None:
    """Show the config that files make: layers, defaults and durations resolved, as YAML."""
    if not files and experiment is None:
        raise click.BadParameter("no file was given", param_hint="FILE")
    paths = matching(files)
    layers = read_layers(paths, overrides, load(modules, experiment), length)
    tell(layers.doubts)
    values = {k: v for k, v in layers.resolved.as_dict().items() if layers.is_known(k)}
    if not defaults:
        values = _without(
            values, {leaf.path for leaf in leaves(layers.resolved) if leaf.is_default}
        )
    if form == "json":
        print_json(values)
        return
    text = write_comments(yaml_file.dump(values), _comments(paths, layers, next(iter(values), "")))
    print(text, end="")


def _comments(paths: Iterable[str], layers: Layers, first: str) -> dict[str, Comment]:
    """Returns the comments of all files; those of values that a later layer set are left out.

    What stands above the task, where that is left out, is above the first key.
    """
    last = {path: chain[-1].origin.source for path, chain in layers.histories.items()}
    found: dict[str, Comment] = {}
    for file in paths:
        comments = read_comments(read_text(file))
        found |= {
            path: comment for path, comment in comments.items() if last.get(path, file) == file
        }
    if not layers.is_known("task") and "task" in found:
        below = found.get(first, Comment())
        found[first] = Comment((*found["task"].above, *below.above), below.beside)
    return found


def _without(value: Any, paths: set[str], path: str = "") -> Any:
    """Returns nested values without those at some paths, and without what is empty then."""
    if isinstance(value, list):
        return [_without(item, paths, f"{path}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for key, item in value.items():
        place = f"{path}.{key}" if path else key
        below = _without(item, paths, place)
        if place not in paths and (below != {} or item == {}):
            kept[key] = below
    return kept
