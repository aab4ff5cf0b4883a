"""How commands print: as text or JSON, and to a file."""

import contextlib
import json
import shutil
import textwrap
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import click

from optimization.cli.command import Choice

format_option = click.option(
    "--format",
    "form",
    type=Choice(["text", "json"]),
    default="text",
    help="How to print it.",
)
output_option = click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write; none: print it.",
)


def wrapped(text: str, indent: str = "") -> str:
    """Returns a text as wide as the terminal, 100 columns at most; its first line stands out."""
    return textwrap.fill(
        text,
        min(shutil.get_terminal_size().columns, 100),
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    print(json.dumps(value, indent=2))


@contextlib.contextmanager
def writing(path: str | PathLike[str]) -> Iterator[None]:
    """Has an error of the file system be wrong usage of `--output`.

    Raises:
        click.BadParameter: If a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        folder = Path(path).parent
        if not folder.exists():
            message += f"; make the folder '{folder}' first"
        raise click.BadParameter(message, param_hint="--output") from None
