"""A lint of what configs mean: rules with codes, which a comment in the file silences.

A rule is a function in one of this package's modules that `rule` registers with its code, its
severity and a summary; `docs/lint/CODE.md` is its page.
"""

import importlib
import pkgutil

from optimization.lint.findings import Finding, errors_of, lint
from optimization.lint.registry import RULES, Rule, Severity, rule, told
from optimization.lint.subject import Subject

# This registers the rules: those of all files of the package.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["RULES", "Finding", "Rule", "Severity", "Subject", "errors_of", "lint", "rule", "told"]
