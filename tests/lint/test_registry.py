import ast
import itertools
import re
from pathlib import Path

import pytest

import optimization
from optimization.lint import RULES, Severity, rule
from optimization.lint.registry import RULES as SAME

PACKAGE = Path(optimization.__file__).parent
MAKERS = {"Problem", "_problem", "problem", "_refuse"}


def codes_in(tree):
    """Yields the codes with which problems are made or changed."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        values += node.args[:1] if name in MAKERS else []
        yield from (v.value for v in values if isinstance(v, ast.Constant))


def test_every_code_of_the_package_has_a_rule():
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    used = set(itertools.chain(*map(codes_in, trees)))
    assert {"unknown-key", "unmatched", "warmup-jump", "mode"} <= used
    assert used <= {*RULES}


def test_codes_are_slugs_and_summaries_sentences():
    for code, found in RULES.items():
        assert code == found.code
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
        assert found.summary[0].isupper()
        assert found.summary.endswith(".")


def test_a_code_is_registered_once():
    with pytest.raises(ValueError, match="there is a rule 'mode' already"):
        rule("mode", Severity.INFO, "Twice.")(lambda subject: iter(()))
    assert SAME["mode"].severity is Severity.WARNING


def test_severities_are_ordered():
    assert Severity.ERROR.is_at_least(Severity.WARNING)
    assert Severity.WARNING.is_at_least(Severity.WARNING)
    assert not Severity.INFO.is_at_least(Severity.WARNING)
