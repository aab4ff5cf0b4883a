"""`optfactory`, also `python -m optimization`: finds the commands, and tells errors in words.

A command is `command` in a module of this package that `COMMANDS` names: a function with options by
click, whose docstring is the help. Its module is imported when it is asked for, and imports what is
heavy when it runs. It returns the exit status, None for 0. Options are written with dashes;
underscores are taken too.
"""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from optimization._version import __version__
from optimization.cli.command import Context
from optimization.configs.errors import ConfigError, nearest_or_all
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


class _Commands(click.Group):
    """The commands of `COMMANDS`, each imported when it is asked for."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name.replace("_", "-") for name in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"optimization.cli.{cmd_name.replace('-', '_')}")
        return module.command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {args[0]!r}{nearest_or_all(args[0], names)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        if sys.stdout is not None:  # Here a reader that is gone is no error; at Python's end it is.
            sys.stdout.flush()
        return result


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__, message=f"optfactory {__version__}")
def app() -> None:
    """See optimizers and learning rates from configuration before they train anything."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status.

    Args:
        arguments: What follows the program's name; None for those of the process.
    """
    with stopping(door=True) as stop:
        status = _run(arguments)
    return status if stop.signum is None else stop.status


def _run(arguments: Sequence[str] | None) -> int:
    color = False if os.environ.get("NO_COLOR") else None  # None: on a terminal
    words = None if arguments is None else list(arguments)
    try:
        return app.main(words, "optfactory", standalone_mode=False, color=color) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (ConfigError, TrainingError) as error:
        print(error, file=sys.stderr)
        return ERRORS
    except (click.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        print(f"the output cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tries once more at its end
        return ERRORS
