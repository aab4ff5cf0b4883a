"""The rules of the lint: each has a code, a severity, a summary, and a page in the docs.

A rule is a function that yields problems with its code; `rule` registers it. What the configs tell
of by themselves is registered by `told`, in `optimization.lint.told`.
"""

import enum
from collections.abc import Callable, Iterator
from typing import NamedTuple

from optimization.configs.errors import Problem
from optimization.lint.subject import Subject

DOCS_URL = "https://optimizer-factory.readthedocs.io/en/latest/"
"""Where the docs are on the web."""


class Severity(enum.StrEnum):
    """How much a finding matters, the most serious first.

    An error keeps a file from being used, a warning is probably a mistake, an info is worth
    knowing.

    >>> Severity.WARNING.is_at_least(Severity.INFO)
    True
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    def is_at_least(self, other: "Severity") -> bool:
        """Whether this is as serious as another one, or more."""
        return list(Severity).index(self) <= list(Severity).index(other)


Find = Callable[[Subject], Iterator[Problem]]


class Rule(NamedTuple):
    """What the lint finds under one code.

    Attributes:
        code: A stable name, which `# optfactory: ignore[CODE]` takes.
        severity: How much a finding matters.
        summary: What it finds, in one sentence.
        needs: What must be known: "", "train_steps", "experiment", or "training" for what is told
            only when the training starts.
        is_on: Whether it runs unless it is left out; if not, only where it is selected.
        find: The function that finds it; None where the configs tell of it by themselves.
    """

    code: str
    severity: Severity
    summary: str
    needs: str = ""
    is_on: bool = True
    find: Find | None = None

    @property
    def page(self) -> str:
        """The page of the rule, below docs/."""
        folder = "errors" if self.severity is Severity.ERROR else "lint"
        return f"{folder}/{self.code}.md"

    @property
    def url(self) -> str:
        """The address of that page."""
        return DOCS_URL + self.page.removesuffix(".md") + "/"


RULES: dict[str, Rule] = {}
"""Every rule by its code."""


def told(code: str, severity: Severity, summary: str, needs: str = "") -> None:
    """Registers what the configs tell of by themselves."""
    _add(Rule(code, severity, summary, needs))


def rule(
    code: str, severity: Severity, summary: str, needs: str = "", is_on: bool = True
) -> Callable[[Find], Find]:
    """Registers the decorated function, which yields problems with this code."""

    def register(find: Find) -> Find:
        _add(Rule(code, severity, summary, needs, is_on, find))
        return find

    return register


def _add(new: Rule) -> None:
    if new.code in RULES:
        raise ValueError(f"there is a rule {new.code!r} already")
    RULES[new.code] = new
