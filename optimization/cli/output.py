"""What commands with `--output` do where a file cannot be written."""

import contextlib
from collections.abc import Iterator
from os import PathLike

import typer


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
