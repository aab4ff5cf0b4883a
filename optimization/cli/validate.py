"""`optfactory validate`: checks files, and what they mean."""

import enum
from typing import Annotated

import typer

from optimization.cli import reports
from optimization.cli.experiments import Experiment, Modules, load
from optimization.cli.files import Files, matching, read_whole
from optimization.configs.errors import ConfigError, nearest_or_all
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.text_files import read_text
from optimization.lint import RULES, Finding, Severity, Subject, errors_of, lint


class Format(enum.StrEnum):
    """What `--format` takes."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


def command(
    files: Files,
    modules: Modules = None,
    experiment: Experiment = None,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail too.")] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="text; json, a list of objects; github, annotations of a workflow; sarif 2.1.0.",
        ),
    ] = Format.TEXT,
    severity: Annotated[
        Severity, typer.Option(help="The least severity that is told.")
    ] = Severity.WARNING,
    select: Annotated[
        str,
        typer.Option(
            metavar="CODE,...", help="Rules to tell of too, though they are off, or infos."
        ),
    ] = "",
) -> None:
    """Check YAML files, every error of every file at once, and what they mean.

    Errors keep a file from being used, warnings are probably mistakes, infos are
    worth knowing. `# optfactory: ignore[CODE]` at the end of a line silences the
    warnings and infos of that line; before all content, those of the file.

    Exit code 0: fine, 1: errors (with --strict, warnings too), 2: wrong usage.
    """
    base, selected = load(modules, experiment), _codes(select)

    def is_told(finding: Finding) -> bool:
        return finding.severity.is_at_least(severity) or finding.code in selected

    found: list[Finding] = []
    for path in matching(files):
        findings, summary = check(path, base, selected)
        found += findings
        if form is Format.TEXT:
            warnings = sum(finding.severity is Severity.WARNING for finding in findings)
            reports.show(path, list(filter(is_told, findings)), summary, warnings)
    told = list(filter(is_told, found))
    if form is Format.TEXT:
        reports.show_hidden(len(found) - len(told), severity)
    else:
        print(reports.WRITERS[form.value](told), end="")
    fatal = Severity.WARNING if strict else Severity.ERROR
    if any(finding.severity.is_at_least(fatal) for finding in found):
        raise typer.Exit(1)


def check(
    path: str, base: ExperimentConfig | None = None, selected: frozenset[str] = frozenset()
) -> tuple[list[Finding], str | None]:
    """Returns what there is to say of a file, and what it selects; None if it has errors."""
    try:
        file = read_whole(path, base)
    except ConfigError as error:
        return errors_of(error.problems, path), None
    text = read_text(path)
    subject = Subject(file.config, file.trainer, file.experiment, base)
    selects = [
        f"{name} {section.type}"
        for name in ("optimizer", "learning_rate", "warmup")
        if (section := getattr(file.config, name)).type is not None
    ]
    selects += ["ema"] if file.config.ema else []
    return lint(subject, file.doubts, path, text, selected), ", ".join(selects)


def _codes(select: str) -> frozenset[str]:
    codes = frozenset(code.strip() for code in select.split(",") if code.strip())
    for code in sorted(codes - RULES.keys()):
        message = f"there is no rule {code!r}{nearest_or_all(code, RULES)}"
        raise typer.BadParameter(message, param_hint="--select")
    return codes
