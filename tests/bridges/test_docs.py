"""docs/convert.md: its commands print what the page says they print."""

import re
from pathlib import Path

import pytest

from optimization import __version__
from optimization.cli.app import main

PAGE = Path(__file__).parents[2] / "docs" / "convert.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
CONSOLE = [text for language, text in BLOCKS if language == "console"][1:]


@pytest.mark.parametrize("text", CONSOLE, ids=[text.partition("\n")[0] for text in CONSOLE])
def test_a_command_prints_what_the_page_says(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for language, block in BLOCKS:
        if language == "yaml":
            name, _, content = block.removeprefix("# ").partition("\n")
            # The name stands in a line of its own, which is counted.
            Path(name).write_text(f"# {name}\n{content}")
    command, _, shown = text.partition("\n")
    assert main(command.removeprefix("$ optfactory ").split()) == 0
    out, err = capsys.readouterr()
    assert (err + out).replace(__version__, "0.1.0") == shown


def test_there_are_commands():
    assert len(CONSOLE) == 2
