"""How findings are told: a line each, and those of `validate` as JSON, to GitHub, and as SARIF."""

import json
import pathlib
import sys
import textwrap
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

from optimization._version import __version__
from optimization.configs.errors import Problem
from optimization.lint import RULES, Finding, Rule, Severity
from optimization.lint.registry import DOCS_URL

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def show(path: str, told: Sequence[Finding], selects: str | None, warnings: int = 0) -> None:
    """Prints findings of a file to stderr; to stdout what it selects, if it has no errors."""
    for finding in told:
        _print(line_of(finding), _STYLES[finding.severity])
    if selects is not None:
        state = f"{warnings} warning{'s' if warnings > 1 else ''}" if warnings else "fine"
        print(f"{path}: {state}{f' ({selects})' if selects else ''}", flush=True)


def show_hidden(count: int, severity: Severity) -> None:
    """Prints to stderr how many findings are not told, if any."""
    if count:
        more = Severity.WARNING if severity is Severity.ERROR else Severity.INFO
        less = f"below {severity}" if severity is Severity.ERROR else "of severity info"
        _print(f"not shown: {count} {less}; `--severity {more}` shows them", "dim")


def tell(doubts: Iterable[Problem]) -> None:
    """Prints what is doubtful to stderr, a line for each, as `show` does."""
    for doubt in doubts:
        finding = Finding.of(doubt, RULES[doubt.code].severity, "optfactory")
        _print(line_of(finding), _STYLES[finding.severity])


def line_of(finding: Finding) -> str:
    """Returns a finding as one line; of what can be silenced, with its severity and its code.

    >>> print(line_of(Finding("a.yaml", 3, "ema", "advice", Severity.WARNING, "is so", "write x")))
    a.yaml:3: warning: ema: is so; write x [advice]
    """
    if finding.severity is Severity.ERROR:
        return str(finding)
    return f"{finding.place}: {finding.severity}: {finding.text} [{finding.code}]"


def _print(line: str, style: str) -> None:
    """Prints a line to stderr; on a terminal in color, and broken between words."""
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    lines = textwrap.wrap(
        line,
        console.width,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    text = Text("\n".join(lines))
    text.highlight_regex(r"\A(\S+:\d+|\S+):(?= )", "bold")
    text.highlight_regex(r"(?<=: )(warning|info)(?=:\s)|\[[a-z-]+\]\Z", style)
    if style in ("red", "dim"):
        text.stylize(style, text.plain.find(": ") + 1)
    console.print(text, soft_wrap=True)


def json_(findings: Sequence[Finding]) -> str:
    """Returns a list of objects, one for each finding."""
    return json.dumps([finding._asdict() for finding in findings], indent=2) + "\n"


def github(findings: Sequence[Finding]) -> str:
    """Returns workflow commands of GitHub Actions, which annotate the lines of a pull request."""
    commands = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
    lines = []
    for finding in findings:
        properties = {"file": finding.file, "line": finding.line, "title": finding.code}
        written = [f"{k}={_escaped(str(v), ':,')}" for k, v in properties.items() if v is not None]
        text = _escaped(finding.text)
        lines.append(f"::{commands[finding.severity]} {','.join(written)}::{text}\n")
    return "".join(lines)


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def sarif(findings: Sequence[Finding]) -> str:
    """Returns a log in SARIF 2.1.0, with a rule for each code and the address of its page."""
    codes = list(RULES)
    driver = {
        "name": "optfactory",
        "version": __version__,
        "informationUri": DOCS_URL,
        "rules": [_sarif_rule(rule) for rule in RULES.values()],
    }
    results = [_sarif_result(finding, codes.index(finding.code)) for finding in findings]
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(log, indent=2) + "\n"


def _level(severity: Severity) -> str:
    return "note" if severity is Severity.INFO else severity.value


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.summary},
        "helpUri": rule.url,
        "defaultConfiguration": {"level": _level(rule.severity), "enabled": rule.is_on},
    }


def _sarif_result(finding: Finding, index: int) -> dict[str, Any]:
    path = pathlib.Path(finding.file)
    uri = path.as_uri() if path.is_absolute() else urllib.parse.quote(path.as_posix())
    place: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if finding.line is not None:
        place["region"] = {"startLine": finding.line}
    location: dict[str, Any] = {"physicalLocation": place}
    if finding.path:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.path}]
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": _level(finding.severity),
        "message": {"text": finding.text},
        "locations": [location],
    }


WRITERS = {"json": json_, "github": github, "sarif": sarif}
"""What makes a report of all findings, by the name that `--format` takes."""
