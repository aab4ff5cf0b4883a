"""Runs the rules over a file, and leaves out what its comments silence."""

import sys
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from optimization.configs.errors import Origin, Problem, did_you_mean
from optimization.lint.ignores import Ignore, ignores_in
from optimization.lint.registry import RULES, Rule, Severity
from optimization.lint.subject import Subject

_ADVICE = (
    "did you mean",
    "write",
    "leave",
    "lead",
    "move",
    "correct",
    "give",
    "Keras names",
    "set",
)


class Finding(NamedTuple):
    """What is wrong or doubtful in a file.

    Attributes:
        file: The file, as it was named.
        line: The line, from 1; None where it is the whole file.
        path: The dotted path of the value; "" for the whole file.
        code: The code of its rule.
        severity: How much it matters.
        message: What is wrong.
        suggestion: What to do about it; None where nothing is suggested.
    """

    file: str
    line: int | None
    path: str
    code: str
    severity: Severity
    message: str
    suggestion: str | None

    @classmethod
    def of(cls, problem: Problem, severity: Severity, file: str) -> "Finding":
        """Returns a problem of a file as a finding."""
        source, line = problem.origin or Origin(file)
        message, suggestion = _split(problem.message)
        return cls(source, line, problem.path, problem.code, severity, message, suggestion)

    @property
    def place(self) -> str:
        """The file and the line, as `file:line`."""
        return str(Origin(self.file, self.line))

    @property
    def text(self) -> str:
        """What is said, without the place: `path: message; suggestion`."""
        full = self.message + (f"; {self.suggestion}" if self.suggestion else "")
        return str(Problem(self.code, self.path, full))

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def _split(message: str) -> tuple[str, str | None]:
    """Returns a message without the advice at its end, and that."""
    parts = message.split("; ")
    first = next((i for i, part in enumerate(parts) if i and part.startswith(_ADVICE)), None)
    if first is None:
        return message, None
    return "; ".join(parts[:first]), "; ".join(parts[first:])


def errors_of(problems: Iterable[Problem], file: str) -> list[Finding]:
    """Returns errors as findings, in the order of lines; no comment silences them."""
    found = [Finding.of(problem, Severity.ERROR, file) for problem in problems]
    return sorted(found, key=lambda finding: finding.line or sys.maxsize)


def lint(
    subject: Subject,
    doubts: Iterable[Problem],
    file: str,
    text: str,
    selected: Collection[str] = (),
) -> list[Finding]:
    """Returns what the rules find in a file that has no errors, in the order of its lines.

    Args:
        subject: What the file says.
        doubts: What its configs have told of by themselves.
        file: The name of the file.
        text: What is in the file, for its comments.
        selected: Codes of rules that run though they are off.
    """
    rules = [r for r in RULES.values() if _runs(r, subject, selected)]
    problems = [*doubts, *(found for r in rules if r.find for found in r.find(subject))]
    ignores = ignores_in(text)
    left, used = [], set[Ignore]()
    for problem in dict.fromkeys(problems):
        silencing = {i for i in ignores if _silences(i, problem, file)}
        used |= silencing
        if not silencing:
            left.append(problem)
    can_tell = {r.code for r in rules}
    left += _idle([i for i in ignores if i not in used], can_tell, file)
    findings = [Finding.of(p, RULES[p.code].severity, file) for p in left]
    return sorted(findings, key=lambda finding: finding.line or 0)


def _runs(rule: Rule, subject: Subject, selected: Collection[str]) -> bool:
    known = {
        "": True,
        "train_steps": subject.train_steps is not None,
        "experiment": subject.experiment is not None,
        "training": False,
    }
    return known[rule.needs] and (rule.is_on or rule.code in selected)


def _silences(ignore: Ignore, problem: Problem, file: str) -> bool:
    if ignore.code != problem.code:
        return False
    return ignore.of_file or problem.origin == Origin(file, ignore.line)


def _idle(ignores: list[Ignore], can_tell: Collection[str], file: str) -> Iterator[Problem]:
    """Yields the ignores that silence nothing, and those of no code."""
    for code, line, of_file in ignores:
        origin = Origin(file, line)
        if code in can_tell and RULES[code].severity is not Severity.ERROR:
            message = f"`ignore[{code}]` silences nothing on this line"
            advice = "move it to the line that the finding names, or leave it out"
            if of_file:
                message, advice = f"`ignore[{code}]` silences nothing in this file", "leave it out"
            yield Problem("unused-ignore", "", f"{message}; {advice}", origin)
        elif code not in RULES or RULES[code].severity is Severity.ERROR:
            yield Problem("unknown-ignore", "", _unknown(code), origin)


def _unknown(code: str) -> str:
    if not code:
        return "this comment ignores nothing; write `# optfactory: ignore[CODE]`"
    if code in RULES:
        return f"`ignore[{code}]` names an error, which is not silenced; leave it out"
    codes = [r.code for r in RULES.values() if r.severity is not Severity.ERROR]
    return f"`ignore[{code}]` names no code{did_you_mean(code, codes)}"
