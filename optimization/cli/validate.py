"""`optfactory validate`: checks files, and what they mean."""

from collections.abc import Sequence

import click

from optimization.cli import reports
from optimization.cli.command import Choice, Command
from optimization.cli.experiments import experiment_option, load, modules_option
from optimization.cli.files import files_argument, matching, read_whole, sweep_problems
from optimization.configs.errors import ConfigError, nearest_or_all
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.text_files import read_text
from optimization.lint import RULES, Finding, Severity, Subject, errors_of, lint


@click.command(cls=Command)
@files_argument
@modules_option
@experiment_option
@click.option("--strict", is_flag=True, help="Let warnings fail too.")
@click.option(
    "--format",
    "form",
    type=Choice(["text", *reports.WRITERS]),
    default="text",
    help="text; json, a list of objects; github, annotations of a workflow; sarif 2.1.0.",
)
@click.option(
    "--severity",
    "least",
    type=Choice([severity.value for severity in Severity]),
    default=Severity.WARNING.value,
    help="The least severity that is told.",
)
@click.option(
    "--select",
    metavar="CODE,...",
    default="",
    show_default=False,
    help="Rules to tell of too, though they are off, or infos.",
)
def command(
    files: Sequence[str],
    modules: Sequence[str],
    experiment: str | None,
    strict: bool,
    form: str,
    least: str,
    select: str,
) -> int:
    """Check YAML files, every error of every file at once, and what they mean.

    Errors keep a file from being used, warnings are probably mistakes, infos are
    worth knowing. `# optfactory: ignore[CODE]` at the end of a line silences the
    warnings and infos of that line; before all content, those of the file.

    Exit code 0: fine, 1: errors (with --strict, warnings too), 2: wrong usage.
    """
    base, selected, severity = load(modules, experiment), _codes(select), Severity(least)

    def is_told(finding: Finding) -> bool:
        return finding.severity.is_at_least(severity) or finding.code in selected

    found: list[Finding] = []
    for path in matching(files):
        findings, summary = check(path, base, selected)
        found += findings
        if form == "text":
            warnings = sum(finding.severity is Severity.WARNING for finding in findings)
            reports.show(path, list(filter(is_told, findings)), summary, warnings)
    told = list(filter(is_told, found))
    if form == "text":
        reports.show_hidden(len(found) - len(told), severity)
    else:
        print(reports.WRITERS[form](told), end="")
    fatal = Severity.WARNING if strict else Severity.ERROR
    return int(any(finding.severity.is_at_least(fatal) for finding in found))


def check(
    path: str, base: ExperimentConfig | None = None, selected: frozenset[str] = frozenset()
) -> tuple[list[Finding], str | None]:
    """Returns what there is to say of a file, and what it selects; None if it has errors."""
    try:
        file = read_whole(path, base)
    except ConfigError as error:
        problems = sweep_problems(path)
        if problems is None:
            return errors_of(error.problems, path), None
        return errors_of(problems, path), None if problems else "a sweep"
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
        raise click.BadParameter(message, param_hint="--select")
    return codes
