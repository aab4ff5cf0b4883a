"""`optfactory`, also `python -m optimization`: finds the commands, and tells errors in words.

A command is the function `command` of a module in this package that `COMMANDS` names: its signature
says the arguments, its docstring is the help. It imports what is heavy when it runs. Options are
written with dashes; underscores are taken too.
"""

import importlib
import inspect
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from optimization._version import __version__
from optimization.configs.errors import ConfigError
from optimization.training.errors import TrainingError
from optimization.training.signals import stopping

COMMANDS = (
    *("validate", "plot", "explain", "diff", "show"),
    *("list", "show_type", "new", "schema", "convert"),
    *("params", "find_lr", "train", "average"),
)
"""The modules of the commands, in the order in which `--help` has them."""

ERRORS, USAGE = 1, 2
"""Exit codes: errors were found, and the command line itself is wrong; 0 is fine."""

app = typer.Typer(
    name="optfactory",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Command(TyperCommand):
    """A command whose options may have underscores, as the flags of training binaries have."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(_dashed, args[:end]), *args[end:]])


def _dashed(word: str) -> str:
    """Returns a word of a command line, an option with dashes in its name.

    >>> _dashed("--train_steps=1_000"), _dashed("a_file.yaml")
    ('--train-steps=1_000', 'a_file.yaml')
    """
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _version(asked: bool) -> None:
    if asked:
        print(f"optfactory {__version__}")
        raise typer.Exit


@app.callback()
def optfactory(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """See optimizers and learning rates from configuration before they train anything."""


def _help(docstring: str) -> str:
    """Returns a docstring with each paragraph on one line, for the terminal to break."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for _name in COMMANDS:
    _command = importlib.import_module(f"optimization.cli.{_name}").command
    app.command(_name.replace("_", "-"), cls=_Command, help=_help(_command.__doc__))(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status.

    Args:
        arguments: What follows the program's name; None for those of the process.
    """
    with stopping(door=True) as stop:
        status = _run(arguments)
    return status if stop.signum is None else stop.status


def _run(arguments: Sequence[str] | None) -> int:
    try:
        app(prog_name="optfactory", args=None if arguments is None else list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (ConfigError, TrainingError) as error:
        print(error, file=sys.stderr)
        return ERRORS
    except KeyboardInterrupt:
        return 130
    return 0
