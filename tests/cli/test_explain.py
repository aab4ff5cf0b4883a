import json
import sys

import pytest

from optimization.cli.app import main
from optimization.training import registries

BASE = """\
optimizer:
  type: sgd
  sgd: {momentum: 0.9}
learning_rate:
  type: cosine
  cosine: {initial_learning_rate: 0.1}
warmup: {type: linear, linear: {warmup_steps: 10%}}
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "other.yaml").write_text("optimizer:\n  sgd:\n    momentum: 0.8\n")
    return "base.yaml"


def explained(capsys, *arguments):
    assert main(["explain", *arguments, "--format", "json"]) == 0
    return {each["path"]: each for each in json.loads(capsys.readouterr().out)}


def chain(each):
    return [(step["value"], step["origin"]) for step in each["chain"]]


def test_the_whole_chain(base, capsys):
    arguments = ["other.yaml", "momentum", "--params_override", "optimizer.sgd.nesterov=true"]
    found = explained(capsys, base, *arguments, "--params_override=optimizer.sgd.momentum=0.7")
    momentum = found["optimizer.sgd.momentum"]
    assert chain(momentum) == [
        (0.0, "default"),
        (0.9, "base.yaml:3"),
        (0.8, "other.yaml:3"),
        (0.7, "override 2"),
    ]
    assert (momentum["value"], momentum["used"], momentum["written"]) == (0.7, True, True)
    assert momentum["chain"][1]["file"] == "base.yaml"
    assert momentum["chain"][1]["line"] == 3
    assert momentum["type"] == "number in [0, 1)"
    assert [*found] == ["optimizer.sgd.momentum"]


def test_text_has_the_meaning_the_unit_and_the_range(base, capsys):
    assert main(["explain", base, "warmup_steps", "--train_steps", "50"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "warmup.linear.warmup_steps = 5",
        "    not set (default) -> '10%' (base.yaml:7) -> 5 (resolved)",
        "    optimizer steps >= 0, '5 epochs', '10%'; required",
        "    W, the length of the warmup, 0 for none.",
    ]
    assert err == ""


def test_defaults_that_nobody_wrote_are_counted(base, capsys):
    assert main(["explain", base]) == 0
    out = capsys.readouterr().out
    assert "optimizer.sgd.momentum = 0.9" in out
    assert "nesterov" not in out
    assert "values more are defaults; --all shows them" in out
    assert main(["explain", base, "--all"]) == 0
    assert "optimizer.sgd.nesterov = false\n    false (default)" in capsys.readouterr().out


def test_a_type_is_explained_by_what_it_is(base, capsys):
    assert main(["explain", base, "optimizer.type"]) == 0
    assert "Stochastic gradient descent, with momentum." in capsys.readouterr().out


def test_a_path_is_a_section_or_a_part_of_one(base, capsys):
    whole = explained(capsys, base, "learning_rate")
    assert {path.split(".")[0] for path in whole} == {"learning_rate"}
    assert [*explained(capsys, base, "cosine.alpha")] == ["learning_rate.cosine.alpha"]


def test_a_value_that_another_layer_unselects_is_not_used(base, capsys):
    arguments = [base, "momentum", "--params_override", "optimizer.type=adam"]
    assert not explained(capsys, *arguments)["optimizer.sgd.momentum"]["used"]
    assert main(["explain", *arguments]) == 0
    assert "momentum = 0.9  (not used: another type is selected)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base.yaml", "momentmu"], "there is no value 'momentmu'; did you mean 'momentum'?"),
        (["base.yaml", "rate"], "there is no value 'rate'; there are initial_learning_rate, "),
        (["momentum"], "no file was given; 'momentum' is read as a path of values\n"),
        ([], "no file was given"),
        (["base.yaml", "--train_steps", "0"], "Invalid value for '--train-steps'"),
    ],
)
def test_wrong_usage(base, arguments, message, capsys):
    assert main(["explain", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_mistakes_are_told_with_the_override_that_has_them(base, capsys):
    overrides = ["--params_override=optimizer.sgd.momentmu=1", "--params_override=warmup={}x"]
    assert main(["explain", base, "no.yaml", *overrides]) == 1
    err = capsys.readouterr().err
    assert "override 1 'optimizer.sgd.momentmu=1': optimizer.sgd.momentmu: unknown key" in err
    assert "no.yaml: cannot be read" in err
    assert "override 2" in err


EXPERIMENT = """\
task: {own: 3, train_data: {global_batch_size: 8}}
trainer:
  train_steps: 100
  train_tf_while_loop: true
  optimizer_config:
    optimizer: {type: sgd}
    learning_rate: {type: cosine, cosine: {initial_learning_rate: 0.1}}
"""


def test_the_file_of_an_experiment_says_how_long_is_trained(base, tmp_path, capsys):
    (tmp_path / "whole.yaml").write_text(EXPERIMENT)
    found = explained(capsys, "whole.yaml", "other.yaml")
    decay = found["trainer.optimizer_config.learning_rate.cosine.decay_steps"]
    assert chain(decay) == [("remaining", "default"), (100, "resolved")]
    assert found["trainer.train_steps"]["unit"] == "training steps"
    # A section beside an experiment is that of the experiment.
    momentum = found["trainer.optimizer_config.optimizer.sgd.momentum"]
    assert chain(momentum) == [(0.0, "default"), (0.8, "other.yaml:3")]
    # What a task may hold is not known.
    assert not any(path.startswith("task") for path in found)
    assert main(["explain", "whole.yaml", "train_steps"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("whole.yaml:1: info: task: is left out: --experiment NAME")
    assert main(["explain", "whole.yaml", "--params_override", "task.own=3"]) == 1
    assert "task.own: is not known; --experiment NAME says" in capsys.readouterr().err
    assert main(["explain", "whole.yaml", "--train_steps", "3"]) == 2
    assert "--params-override=trainer.train_steps=..." in capsys.readouterr().err


def test_what_an_experiment_file_leaves_open_is_no_error(tmp_path, capsys):
    path = tmp_path / "part.yaml"
    path.write_text("trainer: {optimizer_config: {optimizer: {sgd: {momentum: 0.5}}}}\n")
    assert main(["explain", str(path)]) == 0
    assert "is not set in these files; the registered experiment must set it" in (
        capsys.readouterr().err
    )


def test_a_registered_experiment_is_part_of_the_chain(base, tmp_path, monkeypatch, capsys):
    (tmp_path / "experiment_to_explain.py").write_text(
        "from optimization import ExperimentConfig\n"
        "from optimization.training import register_experiment\n"
        "@register_experiment('mine')\n"
        "def mine():\n"
        "    sgd = {'type': 'sgd', 'sgd': {'momentum': 0.6}}\n"
        "    rate = {'type': 'constant'}\n"
        "    section = {'optimizer': sgd, 'learning_rate': rate}\n"
        "    return ExperimentConfig(trainer={'train_steps': 7, 'optimizer_config': section})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registries, "_EXPERIMENTS", {})
    sys.modules.pop("experiment_to_explain", None)
    path = tmp_path / "part.yaml"
    path.write_text("trainer: {optimizer_config: {optimizer: {sgd: {momentum: 0.5}}}}\n")
    options = ["--import", "experiment_to_explain", "--experiment", "mine"]
    found = explained(capsys, "part.yaml", "momentum", *options)
    (momentum,) = found.values()
    assert chain(momentum) == [
        (0.0, "default"),
        (0.6, "experiment mine"),
        (0.5, "part.yaml:1"),
    ]
