"""`optfactory list`: the types and experiments that there are."""

import fnmatch
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from optimization.cli.catalog import REGISTRIES, types
from optimization.cli.command import Choice, Command, argument
from optimization.cli.experiments import check_registered, load, modules_option
from optimization.cli.output import format_option, print_json
from optimization.configs.errors import nearest_or_all
from optimization.training.registries import experiment_names, summary_of

_WHAT = [*(f"{section}s" for section in REGISTRIES), "experiments"]


@click.command(cls=Command)
@argument("what", metavar="WHAT", type=Choice(_WHAT), help=f"One of {', '.join(_WHAT)}.")
@argument(
    "pattern",
    metavar="[PATTERN]",
    default="",
    help="Part of the name, or a pattern such as 'hf_*'.",
)
@modules_option
@format_option
def command(what: str, pattern: str, modules: Sequence[str], form: str) -> None:
    """List types or experiments, one a line: the name, what it is, the backends that have it."""
    load(modules, None)
    known = list(_rows(what))
    if not known:
        check_registered()
    rows = [row for row in known if _matches(row["name"], pattern)]
    if not rows:
        near = nearest_or_all(pattern, [row["name"] for row in known])
        raise click.BadParameter(f"none matches {pattern!r}{near}", param_hint="PATTERN")
    if form == "json":
        print_json(rows)
    else:
        print(_text(rows))


def _rows(what: str) -> Iterator[dict[str, Any]]:
    if what == "experiments":
        for name in experiment_names():
            yield {"name": name, "summary": summary_of(name)}
        return
    for kind in types(what.removesuffix("s")):
        yield {"name": kind.name, "summary": kind.summary, "backends": [*kind.backends]}


def _matches(name: str, pattern: str) -> bool:
    if any(sign in pattern for sign in "*?["):
        return fnmatch.fnmatch(name, pattern.lower())
    return pattern.lower() in name


def _text(rows: list[dict[str, Any]]) -> str:
    """Returns a line for each; on a terminal no line is longer than that is wide."""
    cells = [(row["name"], ", ".join(row.get("backends", ())), row["summary"]) for row in rows]
    widths = [max(len(cell[column]) for cell in cells) for column in (0, 1)]
    lines = [
        "  ".join([text.ljust(width) for text, width in zip(cell, widths, strict=False) if width])
        + f"  {cell[2]}"
        for cell in cells
    ]
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    longest = shutil.get_terminal_size().columns if on_terminal else None
    return "\n".join(line if longest is None else _cut(line, longest) for line in lines)


def _cut(line: str, longest: int) -> str:
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
