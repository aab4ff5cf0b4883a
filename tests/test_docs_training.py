"""docs/training.md: its examples run, and print what the page says they print."""

import re
import shlex

import keras
import pytest
import yaml

from optimization.cli.app import main
from optimization.training.results import read_results
from tests.test_docs import DOCS, blocks, run_examples
from tests.training.tiny import quiet, run, tiny

PAGE = DOCS / "training.md"
NAMES = re.search(r"```\n# names.txt\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


def commands():
    for block in blocks(PAGE):
        if block.language == "console":
            command, _, output = block.text.removeprefix("$ optfactory ").partition("\n")
            yield shlex.split(command), output


def pattern_of(output, exactly):
    """Returns the expression for an output, in which `...` is any number of lines.

    If not `exactly`, numbers and bars are others on another machine.
    """
    lines = []
    for line in output.splitlines():
        text = re.escape(line)
        if not exactly:
            text = re.sub(r"\d(\\\.|\\-|[\de])*", r"[\\d.e-]+", text)
            text = re.sub(r"(\\ )+", " +", re.sub("█+", "█+", text))
        lines.append("(?:.*\n)*" if line == "..." else f"{text}\n")
    return "".join(lines)


def test_the_table_of_names_is_as_shown(tmp_path, monkeypatch, capsys):
    (arguments, output), *_ = [each for each in commands() if each[0][0] == "params"]
    monkeypatch.setattr("builtins.open", _opening(tmp_path))
    monkeypatch.chdir(DOCS.parent)
    assert main(arguments) == 0
    assert capsys.readouterr().out == output


def _opening(folder):
    real = open
    (folder / "names.txt").write_text(NAMES)
    return lambda path, *a, **k: real(folder / path if path == "names.txt" else path, *a, **k)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "exactly"), [("train", True), ("find-lr", False)])
def test_commands_print_what_is_shown(command, exactly):
    (arguments, output), *_ = [each for each in commands() if each[0][0] == command]
    status, out, err = run(["-m", "optimization", *arguments])
    assert status == 0, err
    assert re.fullmatch(pattern_of(output, exactly), out), out


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the trainer needs it")
def test_the_python_examples_print_what_is_shown(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names = {"experiment": tiny(), "model_dir": str(tmp_path / "run"), "quiet": quiet()}
    outputs = run_examples(PAGE, tmp_path, names=names)
    shown = [(block, printed) for block, printed in outputs if block.language == "text"]
    assert len(shown) == 5
    for block, printed in shown:
        assert printed == block.text, f"{PAGE.name}:{block.line}"
    told = set(re.findall(r"`(\w+)`", _section("results.json").partition("Numbers")[0]))
    assert read_results(tmp_path / "run").keys() <= told


def _section(title):
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_settings_are_right():
    sections = [yaml.safe_load(b.text)["trainer"] for b in blocks(PAGE) if b.language == "yaml"]
    assert len(sections) == 2
    for section in sections:
        config = tiny().replace(trainer=section)
        assert config.problems()[0] == []
