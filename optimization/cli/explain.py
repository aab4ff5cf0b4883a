"""`optfactory explain`: each value, where it comes from, and what it means."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click

from optimization.cli.command import Command, argument
from optimization.cli.experiments import experiment_option, load, modules_option
from optimization.cli.files import matching
from optimization.cli.layers import Layers, length_options, overrides_option, read_layers
from optimization.cli.output import format_option, print_json, wrapped
from optimization.cli.reports import tell
from optimization.configs.base import plain
from optimization.configs.documentation import FieldDoc, field_doc, first_sentence, value_text
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import PYTHON, Origin, did_you_mean
from optimization.configs.leaves import Leaf, Written, leaves
from optimization.configs.oneof import OneOfConfig
from optimization.configs.overrides import PATH, is_file
from optimization.configs.types import REQUIRED

RESOLVED = Origin("resolved")
"""The origin of a number that a duration comes to."""


class Explained(NamedTuple):
    """A value, all that it has been, and what is known of it."""

    leaf: Leaf
    chain: list[Written]
    doc: FieldDoc
    unused: str  # why it does not count; "" where it does

    @property
    def is_written(self) -> bool:
        """Whether the value is more than the default."""
        return len(self.chain) > 1


@click.command(cls=Command)
@argument(
    "words",
    metavar="[FILE]... [PATH]",
    nargs=-1,
    type=click.Path(),
    help="YAML files, later ones win; and of which values, such as optimizer or beta_1.",
)
@overrides_option
@modules_option
@experiment_option
@length_options
@click.option("--all", "everything", is_flag=True, help="Defaults that nobody wrote too.")
@format_option
def command(
    words: Sequence[str],
    overrides: Sequence[str],
    modules: Sequence[str],
    experiment: str | None,
    length: TrainingLength,
    everything: bool,
    form: str,
) -> None:
    """Explain each value: where it comes from, its unit, its range and its meaning."""
    words = list(words)
    wanted = words.pop() if words and _is_path(words[-1]) else ""
    if not words and experiment is None:
        message = "no file was given" + (
            f"; {wanted!r} is read as a path of values" if wanted else ""
        )
        raise click.BadParameter(message, param_hint="FILE")
    layers = read_layers(matching(words), overrides, load(modules, experiment), length)
    found = list(_below(wanted, [*_explained(layers)]))
    if form == "json":
        print_json([_as_json(each, experiment) for each in found])
        return
    tell(layers.doubts)
    shown = [each for each in found if everything or wanted or each.is_written]
    print("\n\n".join(_text(each, experiment) for each in shown))
    if len(shown) < len(found):
        defaults = f"{len(found) - len(shown)} values more are defaults"
        print(f"\n{defaults}; --all shows them, and a PATH those below it.")


def _is_path(word: str) -> bool:
    return bool(PATH.fullmatch(word)) and not is_file(word)


def _explained(layers: Layers) -> Iterator[Explained]:
    counting = {leaf.path: leaf for leaf in leaves(layers.resolved)}
    for leaf in leaves(layers.resolved, unselected=True):
        used = leaf.path in counting
        chain = list(layers.histories.get(leaf.path, [Written(leaf.value, leaf.origin)]))
        if leaf.value is not chain[-1].value and leaf.value != chain[-1].value:
            chain.append(Written(leaf.value, RESOLVED))
        if layers.is_known(leaf.path) and (used or len(chain) > 1):
            unused = "" if used else "not used: another type is selected"
            yield Explained(leaf, chain, field_doc(type(leaf.holder), leaf.name), unused)


def _below(wanted: str, explained: list[Explained]) -> list[Explained]:
    """Returns what is at or below a path, or the end of one; of no path, what counts."""
    if not wanted:
        return [each for each in explained if not each.unused]
    paths = [each.leaf.path for each in explained]
    parts = f".{wanted}."
    begun = [each for each in explained if f".{each.leaf.path}.".startswith(parts)]
    begun += [e for e in explained if not begun and f".{e.leaf.path}[".startswith(f".{wanted}[")]
    found = begun or [each for each in explained if parts in f".{each.leaf.path}."]
    if not found:
        sections = {part for path in paths for part in path.split(".")}
        near = did_you_mean(wanted, [*paths, *sorted(sections)])
        longer = sorted(name for name in sections if wanted in name.split("_"))
        near = near or (f"; there are {', '.join(longer)}" if longer else "")
        raise click.BadParameter(f"there is no value {wanted!r}{near}", param_hint="PATH")
    return found


def _text(each: Explained, experiment: str | None) -> str:
    value = _value(each.leaf.value)
    lines = [f"{each.leaf.path} = {value}" + (f"  ({each.unused})" if each.unused else "")]
    steps = [f"{_value(w.value)} ({_where(w.origin, experiment)})" for w in each.chain]
    for text in (" -> ".join(steps), each.doc.facts, _meaning(each)):
        lines += [wrapped(text, "    ")] if text else []
    return "\n".join(lines)


def _meaning(each: Explained) -> str:
    """Returns what a value means; of a type, what that type is."""
    holder = each.leaf.holder
    if isinstance(holder, OneOfConfig) and each.leaf.name == "type" and holder.type:
        return first_sentence(type(holder.get()))
    return each.doc.meaning


def _where(origin: Origin, experiment: str | None) -> str:
    if origin == PYTHON:
        return f"experiment {experiment}" if experiment else "python"
    return str(origin).partition(" '")[0] if origin.line is None else str(origin)


def _value(value: Any) -> str:
    return "not set" if value is REQUIRED else value_text(value)


def _as_json(each: Explained, experiment: str | None) -> dict[str, Any]:
    chain = [
        {
            "value": None if written.value is REQUIRED else plain(written.value),
            "origin": _where(written.origin, experiment),
            "file": written.origin.source if written.origin.line else None,
            "line": written.origin.line,
        }
        for written in each.chain
    ]
    return {
        "path": each.leaf.path,
        "value": None if each.leaf.value is REQUIRED else plain(each.leaf.value),
        "written": each.is_written,
        "used": not each.unused,
        "chain": chain,
        "type": each.doc.type,
        "unit": each.doc.unit or None,
        "default": each.doc.default,
        "meaning": each.doc.meaning,
    }
