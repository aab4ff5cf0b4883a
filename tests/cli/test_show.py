import json
from pathlib import Path

import pytest

from optimization import load_optimization_config
from optimization.cli.app import main

BASE = """\
# All.
optimizer:
  type: sgd
  sgd:
    momentum: 0.9  # high
learning_rate:
  type: cosine
  # The peak.
  cosine: {initial_learning_rate: 0.1}
"""

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    return "base.yaml"


def test_defaults_and_durations_are_filled_in(base, capsys):
    assert main(["show", base, "--train_steps", "300"]) == 0
    out = capsys.readouterr().out
    assert "    momentum: 0.9  # high\n    nesterov: false\n" in out
    assert "    decay_steps: 300\n" in out


def test_what_is_shown_is_a_file_that_says_the_same(base, tmp_path, capsys):
    for options in ([], ["--no-defaults"]):
        assert main(["show", base, "--train_steps", "300", *options]) == 0
        (tmp_path / "shown.yaml").write_text(capsys.readouterr().out)
        assert main(["diff", base, "shown.yaml", "--train_steps", "300"]) == 0
        capsys.readouterr()


def test_without_defaults_it_is_short(base, capsys):
    assert main(["show", base, "--no-defaults", "--params_override", "optimizer.sgd.decay=0"]) == 0
    shown = BASE.replace("cosine: {initial", "cosine:\n    initial").replace("0.1}", "0.1")
    assert capsys.readouterr().out == shown


def test_a_comment_beside_a_value_that_another_layer_sets_is_left_out(base, capsys):
    overrides = ["--params_override", "optimizer.sgd.momentum=0.5"]
    assert main(["show", base, "--no-defaults", *overrides]) == 0
    out = capsys.readouterr().out
    assert "    momentum: 0.5\n" in out
    assert "# All." in out


def test_json(base, capsys):
    assert main(["show", base, "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["optimizer"]["sgd"]["momentum"] == 0.9
    assert values["ema"] is None


def test_wrong_usage_and_wrong_files(base, capsys):
    assert main(["show"]) == 2
    assert main(["show", base, "--params_override", "optimizer.sgd.momentum=2"]) == 1
    assert "override 1 'optimizer.sgd.momentum=2': optimizer.sgd.momentum: must be < 1" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "optimization").glob("*.yaml")))
def test_every_shipped_file_shows_itself_with_its_comments(path, tmp_path, capsys):
    assert main(["show", str(path), "--no-defaults"]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    assert load_optimization_config(shown) == load_optimization_config(path)
    first = path.read_text().splitlines()[0]
    assert shown.read_text().startswith(first)


def test_the_file_of_an_experiment_keeps_what_stands_above_its_task(tmp_path, capsys):
    path = tmp_path / "whole.yaml"
    path.write_text("# Digits.\ntask: {own: 3}\ntrainer: {train_steps: 7}  # few\n")
    assert main(["show", str(path), "--no-defaults"]) == 0
    out, err = capsys.readouterr()
    assert out == "# Digits.\ntrainer:  # few\n  train_steps: 7\n"
    assert f"{path}:2: info: task: is left out" in err


def test_a_batch_that_a_layer_changes_without_the_rate_is_told(tmp_path, capsys):
    whole = "task: {train_data: {global_batch_size: 64}}\ntrainer: {train_steps: 100, "
    rate = "learning_rate: {type: constant, constant: {learning_rate: 0.1}}"
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(f"{whole}optimizer_config: {{optimizer: {{type: sgd}}, {rate}}}}}\n")
    second.write_text("task:\n  train_data: {global_batch_size: 128}\n")
    assert main(["show", str(first), str(second)]) == 0
    path = "task.train_data.global_batch_size"
    told = f"{second}:2: warning: {path}: makes the batch of an update 2 times as large"
    assert told in capsys.readouterr().err
    override = "--params-override=trainer.optimizer_config.learning_rate.constant.learning_rate=0.2"
    assert main(["show", str(first), str(second), override]) == 0
    assert "makes the batch" not in capsys.readouterr().err
