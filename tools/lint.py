"""Writes the tables of the lint's rules in docs/lint.md.

    python -m tools.lint

Run it after a rule was added; a test says so if you forget.
"""

import pathlib
import re

from optimization.lint import RULES, Rule, Severity

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "lint.md"
_TOLD = {
    "": "always",
    "train_steps": "where `train_steps` is known",
    "experiment": "with `--experiment`",
    "training": "when the training starts",
}


def page(path: pathlib.Path) -> str:
    """Returns the text of the page with new tables."""
    errors = [rule for rule in RULES.values() if rule.severity is Severity.ERROR]
    rules = [rule for rule in RULES.values() if rule.severity is not Severity.ERROR]
    rules.sort(key=lambda rule: (list(Severity).index(rule.severity), rule.code))
    text = path.read_text(encoding="utf-8")
    for header, rows in (
        ("code | what it is", [_row(rule) for rule in errors]),
        ("code | severity | told | what it finds", [_row(rule) for rule in rules]),
    ):
        pattern = rf"(?<=\| {re.escape(header)} \|\n)(\|[-|]+\|\n)(?:\|.*\n)*"
        text, count = re.subn(pattern, lambda found: found[1] + "".join(rows), text)  # noqa: B023
        if count != 1:
            raise ValueError(f"{path} must have one table `| {header} |`, it has {count}")
    return text


def _row(rule: Rule) -> str:
    link = f"[{rule.code}]({rule.page})"
    if rule.severity is Severity.ERROR:
        return f"| {link} | {rule.summary} |\n"
    told = _TOLD[rule.needs] if rule.is_on else "where it is selected"
    return f"| {link} | {rule.severity} | {told} | {rule.summary} |\n"


def main() -> None:
    PAGE.write_text(page(PAGE), encoding="utf-8")


if __name__ == "__main__":
    main()
