import os
import re
import subprocess
import sys

import click
import pytest

from optimization._version import __version__
from optimization.cli.app import COMMANDS, app, main


@pytest.mark.parametrize("name", [name.replace("_", "-") for name in COMMANDS])
def test_options_have_dashes_in_their_names(name):
    command = app.get_command(click.Context(app), name)
    options = [option for p in command.params for option in [*p.opts, *p.secondary_opts]]
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
    words = [sys.executable, "-c", code]
    out = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    assert out.count("Usage: optfactory") == len(COMMANDS)
    assert 70 < max(map(len, out.splitlines())) < 80
    assert "…" not in out
    assert "boundaries. Files\n  with errors are told as `validate` tells them" in out
    assert "Arguments:\n  FILE...  YAML files, or patterns of them such as 'configs/**/" in out


def test_the_nearest_command_is_named(capsys):
    assert main(["validat", "a.yaml"]) == 2
    assert "there is no command 'validat'; did you mean 'validate'?" in capsys.readouterr().err


def test_where_no_command_is_near_all_are_named(capsys):
    assert main(["help"]) == 2
    assert "there is no command 'help'; there are validate, plot, " in capsys.readouterr().err


_STREAMS = {
    "a reader that is gone": ("r, w = os.pipe(); os.close(r); os.dup2(w, 1)", 1, ""),
    "a full disk": (
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
        1,
        "the output cannot be written: No space left on device\n",
    ),
    "no stream": ("sys.stdout = None", 0, ""),
}


@pytest.mark.parametrize("stream", _STREAMS)
@pytest.mark.parametrize("words", [["list", "warmups"], ["schema"], ["--help"]])
def test_output_that_cannot_be_written_shows_no_traceback(stream, words):
    """What is short is written as the command ends, what is long before."""
    if stream == "a full disk" and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full, which Linux has")
    setup, status, message = _STREAMS[stream]
    code = (
        f"import os, sys\n{setup}\nfrom optimization.cli.app import main\nsys.exit(main({words}))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, text=True, check=False, **pipes
    )
    assert (done.returncode, done.stderr) == (status, message)


def test_without_arguments_there_is_the_help_with_all_commands(capsys):
    assert main([]) == 2
    alone = capsys.readouterr().err
    assert main(["-h"]) == 0
    out = capsys.readouterr().out
    assert out.strip() == alone.strip()
    names = [name.replace("_", "-") for name in COMMANDS]
    assert re.findall(r"^  ([a-z][a-z-]*)  +[A-Z]", out, re.MULTILINE) == names
    assert "..." not in out.partition("Commands:")[2]


def test_the_version_needs_no_command_and_no_module_of_one():
    code = "import sys; from optimization.cli.app import COMMANDS, main; main(['--version']); "
    code += "print([name for name in COMMANDS if f'optimization.cli.{name}' in sys.modules])"
    words = [sys.executable, "-c", code]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert out == f"optfactory {__version__}\n[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_values(shell, monkeypatch, capsys):
    def completed(*words):
        monkeypatch.setenv("_OPTFACTORY_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["optfactory", *words]))
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
        assert main() == 0
        return capsys.readouterr().out

    assert "show-type" in completed("sho")
    assert "--train-steps" in completed("show", "--tr")
    assert "learning_rates" in completed("list", "le")
    monkeypatch.setenv("_OPTFACTORY_COMPLETE", f"{shell}_source")
    assert main() == 0
    assert f"_OPTFACTORY_COMPLETE={shell}_complete" in capsys.readouterr().out


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
