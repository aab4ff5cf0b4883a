"""The page about the schema: what it writes takes the page's file."""

import json
from pathlib import Path

import pytest
import yaml

from optimization.cli.app import main
from tests import pages


def test_the_schema_that_the_page_writes_takes_the_page_s_file(tmp_path, monkeypatch, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.chdir(tmp_path)
    assert main(["schema", "-o", "optfactory.json"]) == 0
    validator = jsonschema.Draft202012Validator(json.loads(Path("optfactory.json").read_text()))
    found = pages.blocks(pages.DOCS / "schema.md")
    (text,) = [block.text for block in found if block.language == "yaml"]
    assert validator.is_valid(yaml.safe_load(text))
    assert not validator.is_valid(yaml.safe_load(text.replace("momentum", "momentmu")))
