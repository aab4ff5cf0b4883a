"""The pages about commands: each console block prints what it shows."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from optimization.cli.app import main

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["commands.md", "schema.md"])
def test_the_examples_print_what_the_page_says(name, tmp_path, monkeypatch):
    if name == "schema.md":
        pytest.importorskip("sklearn")  # of the experiment, which is imported
        monkeypatch.syspath_prepend(DOCS.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    blocks = BLOCK.findall((DOCS / name).read_text())
    for language, text in blocks:
        title = re.match(r"# (\S+\.yaml)\n", text)
        if language == "yaml" and title:
            (tmp_path / title[1]).write_text(text.removeprefix(title[0]))
    ran, printed, names = 0, "", {}
    for language, text in blocks:
        if language == "console":
            command, _, shown = text.partition("\n")
            printed = run(command.removeprefix("$ optfactory "))
            assert matches(shown, printed), f"{command}\n{printed}"
            ran += 1
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile(text, name, "exec"), names)
            printed = stdout.getvalue()
        elif language == "text":
            assert printed == text
    assert ran >= 2


def run(command):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        assert main(shlex.split(command)) in (0, 1)
    return out.getvalue()


def matches(shown, printed):
    """Whether a text is what is shown, where a line of three dots stands for any lines."""
    pattern = re.escape(shown).replace(re.escape("...\n"), "(?:.*\n)*")
    return re.fullmatch(pattern, printed) is not None


def test_the_schema_that_the_page_writes_takes_the_page_s_file(tmp_path, monkeypatch, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.chdir(tmp_path)
    assert main(["schema", "-o", "optfactory.json"]) == 0
    validator = jsonschema.Draft202012Validator(json.loads(Path("optfactory.json").read_text()))
    (text,) = [
        t for language, t in BLOCK.findall((DOCS / "schema.md").read_text()) if language == "yaml"
    ]
    assert validator.is_valid(yaml.safe_load(text))
    assert not validator.is_valid(yaml.safe_load(text.replace("momentum", "momentmu")))
