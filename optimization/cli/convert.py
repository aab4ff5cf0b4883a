"""`optfactory convert`: from the configurations of other libraries to ours, and back."""

import sys
from pathlib import Path
from typing import Any

import click

from optimization._version import __version__
from optimization.bridges.bridges import BRIDGES, TARGETS
from optimization.cli.command import Command, argument
from optimization.cli.output import writing
from optimization.configs.errors import ConfigError, nearest_or_all


class _Library(click.Choice):
    """A choice of libraries, which names the nearest one of a wrong name."""

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> str:
        if value not in self.choices:
            self.fail(f"unknown library {value!r}{nearest_or_all(value, self.choices)}", param, ctx)
        return value


@click.command(cls=Command)
@argument("file", metavar="FILE", type=click.Path(), help="The file to convert.")
@click.option(
    "--from",
    "source",
    type=_Library([*BRIDGES]),
    metavar="LIBRARY",
    help=f"Whose file it is: {', '.join(BRIDGES)}; guessed from its keys, and told, if left out.",
)
@click.option(
    "--to",
    "target",
    type=_Library([*TARGETS]),
    metavar="|".join(TARGETS),
    help="Write for this library instead; without --from, FILE is a config of ours.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write; else standard output.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if anything was not carried over as is.")
@click.option(
    "--exact",
    is_flag=True,
    help="Write a curve that no type here has as a table of its values, epoch by epoch, not as the "
    "nearest type.",
)
@click.option("--verbose", "-v", is_flag=True, help="List the keys that are no matter, too.")
def command(
    file: str,
    source: str | None,
    target: str | None,
    output: Path | None,
    strict: bool,
    exact: bool,
    verbose: bool,
) -> int:
    """Convert a configuration of another library to ours, or ours to its.

    The result is a commented YAML file: it says from where each value is.
    What can't be carried over is listed, with what to do by hand.

    Exit code 1 if the optimizer or the learning rate can't be carried over,
    or, with --strict, if anything is listed.
    """
    if target is not None and source is None:
        return _export(file, target, output, strict)
    draft = _convert(file, source, exact)
    if target is not None:
        return _chain(draft, file, target, output, strict)
    from optimization.bridges.writing import written

    title = f"Converted by optfactory {__version__} from {Path(file).name}"
    _write(written(draft, f"{title} ({draft.title})."), output)
    _tell(draft.findings)
    _summary(draft, file, verbose)
    missing = _missing(draft)
    return int(missing or (strict and draft.incomplete))


def _convert(file: str, source: str | None, exact: bool):
    from optimization.bridges import bridges, files

    mapping = files.read(file)
    if source is None:
        source = bridges.guess(mapping, file)
        print(f"{file}: read as {source} ({BRIDGES[source]})", file=sys.stderr)
    bridges.check(source, mapping, file)
    draft = bridges.convert(source, mapping, file, exact)
    draft.title = BRIDGES[source]
    return draft


def _export(file: str, target: str, output: Path | None, strict: bool) -> int:
    from optimization.bridges import bridges, files
    from optimization.cli.files import read
    from optimization.cli.reports import tell

    try:
        config, doubts = read(file)
    except ConfigError:
        bridges.check("garden", files.read(file), file, "one of ours")
        raise
    tell(doubts)
    return _write_export(config, file, target, output, strict)


def _chain(draft, file: str, target: str, output: Path | None, strict: bool) -> int:
    from optimization.configs.optimization_config import OptimizationConfig, optimization_section

    _tell(draft.findings)
    try:
        section, _ = optimization_section(draft.values, file)
        config = OptimizationConfig(section)
        config.validate()
    except ConfigError as error:
        raise ConfigError([p._replace(origin=None) for p in error.problems]) from None
    return _write_export(config, file, target, output, strict, draft.incomplete)


def _write_export(config, file, target, output, strict, incomplete: bool = False) -> int:
    from optimization.bridges import bridges
    from optimization.bridges.draft import NOTE
    from optimization.bridges.writing import written_json, written_plain

    values, findings = bridges.export(target, config)
    if target == "hf":
        _write(written_json(values), output)
    else:
        title = f"Converted by optfactory {__version__} from {Path(file).name}."
        _write(written_plain(values, title, findings), output)
    _tell([finding._replace(path=f"{file}: {finding.path}") for finding in findings])
    return int(strict and (incomplete or any(finding.kind != NOTE for finding in findings)))


def _missing(draft) -> bool:
    """Tells whether the optimizer or the learning rate has no type, and what that means."""
    from optimization.configs.optimization_config import optimization_section

    section, _ = optimization_section(draft.values)
    missing = [n for n in draft.required if not section.get(n, {}).get("type")]
    for name in missing:
        print(f"{name}.type: could not be carried over; write one in the result", file=sys.stderr)
    return bool(missing)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    with writing(output):
        output.write_text(text, encoding="utf-8")


def _tell(findings) -> None:
    for finding in findings:
        print(finding, file=sys.stderr)


def _summary(draft, file: str, verbose: bool) -> None:
    if verbose:
        for group, keys in sorted(draft.no_matter.items()):
            print(f"{file}: no matter, {group}: {', '.join(keys)}", file=sys.stderr)
    told = sum(finding.kind != "note" for finding in draft.findings)
    idle = sum(map(len, draft.no_matter.values()))
    parts = [f"{len(draft.comments)} values carried over"]
    parts.append(f"{told} listed above" if told else "nothing lost")
    if idle:
        hint = "" if verbose else " (see --verbose)"
        keys = "key is" if idle == 1 else "keys are"
        parts.append(f"{idle} {keys} no matter of the optimizer{hint}")
    print(f"{file}: {', '.join(parts)}", file=sys.stderr)
