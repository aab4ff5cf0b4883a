"""What the commands are made of: click's parts, with help for arguments and with colors in help."""

import inspect
from collections.abc import Callable
from typing import Any

import click

from optimization.configs.errors import did_you_mean


class _Formatter(click.HelpFormatter):
    """Sets titles and names off from the text; where there is no terminal, click drops colors."""

    def write_heading(self, heading: str) -> None:
        super().write_heading(click.style(heading, bold=True))

    def write_dl(self, rows: Any, *args: Any, **kwargs: Any) -> None:
        colored = [(click.style(name, fg="cyan"), text) for name, text in rows]
        super().write_dl(colored, *args, **kwargs)


class Context(click.Context):
    """The context of a command, which makes its help."""

    formatter_class = _Formatter


class _Argument(click.Argument):
    """An argument that has help, as options have it."""

    def __init__(self, *args: Any, meaning: str, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.meaning = meaning


def argument(*names: str, help: str, **kwargs: Any) -> Callable[[Any], Any]:
    """Adds an argument to a command, with its help; see `click.argument`."""
    return click.argument(*names, cls=_Argument, meaning=help, **kwargs)


class Command(click.Command):
    """A command whose options may have underscores, as the flags of training binaries have.

    The list of commands has the whole first paragraph of its help.
    """

    context_class = Context

    def __init__(self, name: str | None, *, help: str, **kwargs: Any):
        first = inspect.cleandoc(help).partition("\n\n")[0]
        super().__init__(name, help=help, short_help=" ".join(first.split()), **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(_dashed, args[:end]), *args[end:]])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [each for each in self.get_params(ctx) if isinstance(each, _Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(each.make_metavar(ctx), each.meaning) for each in arguments])
        super().format_options(ctx, formatter)


class Choice(click.Choice):
    """A choice of words; of a wrong one the nearest is named."""

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = did_you_mean(value, self.choices)
            self.fail(f"{error.message.removesuffix('.')}{near or '.'}", param, ctx)


class WholeNumber(click.IntRange):
    """A whole number, from `least` on."""

    def __init__(self, least: int):
        super().__init__(least)

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"expected a whole number >= {self.min}, got {value!r}", param, ctx)


def _dashed(word: str) -> str:
    """Returns a word of a command line, an option with dashes in its name.

    >>> _dashed("--train_steps=1_000"), _dashed("a_file.yaml")
    ('--train-steps=1_000', 'a_file.yaml')
    """
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word
