"""SECURITY.md: each promise names the test that holds it."""

import ast
import re

from tests.pages import ROOT

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions_in(path):
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_exists():
    named = _TEST.findall(PAGE)
    assert len(named) > 10
    for path, name in named:
        assert name in functions_in(path), f"{path}::{name}"


def test_every_promise_names_its_test():
    _, _, table = PAGE.partition("| what | what it can't do | held by |\n")
    rows = table.partition("\n\n")[0].splitlines()[1:]
    assert len(rows) > 10
    assert [row for row in rows if not _TEST.search(row)] == []


def test_its_numbers_are_those_of_the_code():
    from optimization.configs import errors, overrides, text_files, yaml_file

    limits = {
        yaml_file.MAX_VALUES: "100,000 values",
        yaml_file.MAX_DEPTH: "50 levels",
        errors.MAX_TEXT: "4,000 characters",
        overrides._MOST: "1,000 settings",
        text_files.MAX_BYTES: "1 MiB",
        text_files.MAX_JSON_BYTES: "16 MiB",
        text_files.MAX_JSON_VALUES: "1,000,000 values",
    }
    units = {" MiB": 2**20}
    for number, text in limits.items():
        assert text in PAGE
        count, unit = re.match(r"([\d,]+)( MiB)?", text).groups()
        assert int(count.replace(",", "")) * units.get(unit, 1) == number
