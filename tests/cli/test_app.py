import os
import subprocess
import sys

import pytest
import typer

from optimization.cli.app import COMMANDS, app, main

COMMAND_LINE = typer.main.get_command(app)


@pytest.mark.parametrize("name", [name.replace("_", "-") for name in COMMANDS])
def test_options_have_dashes_in_their_names(name):
    options = [option for p in COMMAND_LINE.commands[name].params for option in p.opts]
    assert [o for o in options if o.startswith("-") and "_" in o] == []


@pytest.mark.parametrize("option", ["--train-steps=10", "--train_steps=10"])
def test_both_spellings_are_taken(option, tmp_path, capsys):
    file = tmp_path / "an_own.yaml"
    file.write_text(
        "optimizer: {type: sgd}\n"
        "learning_rate: {type: linear, linear: {initial_learning_rate: 1, decay_steps: 50%}}\n"
    )
    assert main(["show", str(file), option, "--no_defaults"]) == 0
    assert "decay_steps: 5\n" in capsys.readouterr().out


def test_what_is_no_option_stays_as_it_is(capsys):
    assert main(["validate", "--", "--no_such_file"]) == 1
    assert capsys.readouterr().err == "--no_such_file: cannot be read: No such file or directory\n"


def test_the_nearest_option_is_named_with_dashes(capsys):
    assert main(["show", "a.yaml", "--train_stps=3"]) == 2
    assert "--train-steps" in capsys.readouterr().err


def test_help_has_whole_names_and_paragraphs_at_80_columns():
    code = "import sys; from optimization.cli.app import COMMANDS, main\n"
    code += "for name in COMMANDS: assert main([name.replace('_', '-'), '--help']) == 0"
    environment = {**os.environ, "COLUMNS": "80"}
    environment.pop("TERMINAL_WIDTH")
    words = [sys.executable, "-c", code]
    out = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    assert out.count(" Usage: optfactory") == len(COMMANDS)
    assert max(map(len, out.splitlines())) == 80
    assert "…" not in out
    assert "boundaries. Files with  \n errors are told as `validate` tells them" in out


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_has_its_status(name, status, tmp_path, monkeypatch, capsys):
    """Also while a module of the user's is imported."""
    module = f"sends_{name.lower()}"
    (tmp_path / f"{module}.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), signal.{name})"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["train", "--import", module]) == status
    captured = capsys.readouterr()
    assert captured.err == f"stopped by {name}: there was nothing to save\n"
    assert captured.out == ""
