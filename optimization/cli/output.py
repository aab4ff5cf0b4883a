"""How commands print: as text or JSON, and to a file."""

import contextlib
import json
import shutil
import textwrap
from collections.abc import Iterator
from os import PathLike
from typing import Annotated, Any, Literal

import typer

Format = Annotated[Literal["text", "json"], typer.Option("--format", help="How to print it.")]


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
        typer.BadParameter: If a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise typer.BadParameter(message, param_hint="--output") from None
