"""`optfactory show-type`: all that is known of a type."""

from collections.abc import Iterator, Sequence
from typing import Any

import click

from optimization.cli.catalog import REGISTRIES, Type, find
from optimization.cli.command import Command, argument
from optimization.cli.experiments import load, modules_option
from optimization.cli.output import format_option, print_json, wrapped
from optimization.configs.documentation import field_doc, in_order


@click.command(cls=Command)
@argument(
    "name", metavar="NAME", help="The type, such as lamb, or warmup.linear for one section's."
)
@modules_option
@format_option
def command(name: str, modules: Sequence[str], form: str) -> None:
    """Show a type: its formula and source, its fields, its backends, and its curve."""
    load(modules, None)
    try:
        found = find(name)
    except KeyError as error:
        raise click.BadParameter(error.args[0], param_hint="NAME") from None
    if form == "json":
        print_json([_as_json(kind) for kind in found])
        return
    print("\n\n".join(_text(kind) for kind in found))


def _text(kind: Type) -> str:
    parts = [f"{kind.name}, a type of `{kind.section}`", *_paragraphs(kind)]
    fields = [_field(kind, name) for name in in_order(kind.config_class)]
    parts.append("\n".join(["Fields", *fields]))
    backends = [wrapped(f"{name}: {what}", "  ") for name, what in kind.backends.items()]
    parts.append("\n".join(["Backends", *backends]))
    if kind.section != "optimizer":
        from optimization.plots.examples import picture_of_example

        picture = picture_of_example(REGISTRIES[kind.section], kind.name)
        parts += [] if picture is None else [str(picture)]
    return "\n\n".join(parts)


def _paragraphs(kind: Type) -> Iterator[str]:
    """Yields what a type is; formulas, which are indented, stay as they are."""
    for part in kind.description.split("\n\n"):
        yield part if part.startswith((" ", "- ")) else wrapped(part)
    if kind.source:
        yield wrapped(f"Source: {kind.source}")


def _field(kind: Type, name: str) -> str:
    doc = field_doc(kind.config_class, name)
    return f"{wrapped(f'{name}: {doc.facts}', '  ')}\n{wrapped(doc.meaning, '      ')}"


def _as_json(kind: Type) -> dict[str, Any]:
    fields = [
        {"name": name, **field_doc(kind.config_class, name)._asdict()}
        for name in in_order(kind.config_class)
    ]
    return {
        "section": kind.section,
        "name": kind.name,
        "summary": kind.summary,
        "description": kind.description,
        "source": kind.source,
        "fields": fields,
        "backends": kind.backends,
    }
