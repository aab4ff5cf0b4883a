"""How commands print: as text or JSON, and to a file."""

import contextlib
import json
from collections.abc import Iterator
from os import PathLike
from typing import Annotated, Any, Literal

import typer

Format = Annotated[Literal["text", "json"], typer.Option("--format", help="How to print it.")]


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
