"""Lints texts, as `validate` does files."""

import textwrap

from optimization.cli.validate import check
from optimization.lint import RULES, Severity

SGD = "optimizer: {type: sgd}"


def linted(folder, text, *selected, base=None):
    """Returns the findings of a text, which has no errors."""
    path = folder / "a.yaml"
    path.write_text(textwrap.dedent(text))
    findings, summary = check(str(path), base, frozenset(selected))
    assert summary is not None, [str(finding) for finding in findings]
    return findings


def codes(folder, text, *selected, base=None):
    """Returns the codes of the warnings of a text, and of infos that are selected."""
    found = linted(folder, text, *selected, base=base)
    return [f.code for f in found if f.code in selected or f.severity is not Severity.INFO]


def told(folder, text, code, **kwargs):
    """Returns the line and the rest of each finding of a code."""
    assert code in RULES
    return [
        (f.line, f.path, f.message) for f in linted(folder, text, code, **kwargs) if f.code == code
    ]


def experiment(train_steps, section, trainer=""):
    """Returns the text of an experiment file with an optimization section, of one line each."""
    lines = [f"  train_steps: {train_steps}", f"  {trainer}", "  optimizer_config:"]
    lines += [f"    {line}" for line in textwrap.dedent(section).splitlines()]
    return "\n".join(["trainer:", *lines]) + "\n"
