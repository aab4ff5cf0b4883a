import os
import re
import subprocess
import sys

import pytest

from optimization.cli.app import main
from optimization.training.flags import FLAGS
from tests.training.tiny import ROOT, run, tiny  # noqa: F401  registers an experiment


def test_it_has_the_flags_of_binaries_and_their_words(capsys):
    assert main(["train", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in FLAGS:
        assert f"--{field.name.replace('_', '-')}" in out
        assert " ".join(field.metadata["help"].split()[:2]) in out
    assert "_dir" not in out


def test_help_lists_the_experiments_of_imported_modules(capsys):
    assert main(["train", "--import", "tests.training.tiny", "--help"]) == 0
    assert "tiny: Linear regression in twelve steps." in capsys.readouterr().out


def test_a_module_is_found_where_the_command_runs(tmp_path):
    (tmp_path / "own_module.py").write_text("import tests.training.tiny")
    code = "import sys; sys.path.pop(0); from optimization.cli.app import main; "
    code += "sys.exit(main(['train', '--import=own_module', '--help']))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tiny: Linear regression" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment=tiny"], "error: --model_dir is required"),
        (["--experiment=tinny", "--model_dir=x"], "unknown experiment 'tinny'; did you mean"),
        (["--dry_run", "--experiment=tiny", "--checkpoint=best"], "--checkpoint can't be combined"),
        (
            ["--dry_run", "--experiment=tiny", "--params_override=trainer.train_stepps=3"],
            "trainer.train_stepps: unknown key; did you mean 'train_steps'?",
        ),
    ],
)
def test_mistakes_are_told_as_by_a_binary(arguments, message, capsys):
    assert main(["train", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_without_any_experiment_it_is_said_what_registers_one(tmp_path):
    words = [sys.executable, "-m", "optimization", "train", "--experiment=tiny", "--dry_run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no experiment is registered; --import the module that registers it" in done.stderr


def test_a_wrong_mode_is_wrong_usage(capsys):
    assert main(["train", "--mode=evall"]) == 2
    assert "evall" in capsys.readouterr().err


@pytest.mark.slow
def test_it_trains(tmp_path):
    pytest.importorskip("tensorflow", reason="trains")
    arguments = ["--import=tests.training.tiny", "--experiment=tiny", f"--model_dir={tmp_path}"]
    override = "--params_override=trainer.train_steps=10,trainer.max_to_keep=1"
    status, out, err = run(["-m", "optimization", "train", *arguments, override, "--mode=train"])
    assert status == 0, err
    assert re.search(r"^  steps +10 of 10$", out, re.MULTILINE)
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-10.index"]
