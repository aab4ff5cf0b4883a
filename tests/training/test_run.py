import json

import pytest
from rich.console import Console

from optimization import ConfigError
from optimization.training import CheckpointError, TrainingError, run_experiment
from tests.training.tiny import tiny

QUIET = Console(quiet=True)


def test_each_mode_returns_what_it_measured(tmp_path):
    trained = run_experiment(tiny(), "train", tmp_path, console=QUIET)
    assert set(trained) == {"loss", "mae", "learning_rate", "gradient_norm"}
    evaluated = run_experiment(tiny(), "eval", tmp_path, console=QUIET)
    assert set(evaluated) == {"validation loss", "validation mae"}
    both = run_experiment(tiny(), "train_and_eval", tmp_path / "both", console=QUIET)
    assert both == trained | evaluated
    assert run_experiment(tiny(), "continuous_eval", tmp_path, console=QUIET) == evaluated


def test_training_alone_evaluates_nothing(tmp_path):
    run_experiment(tiny(), "train", tmp_path, console=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["train"]


def test_an_unknown_mode_and_an_incomplete_config_are_errors(tmp_path):
    with pytest.raises(ValueError, match="must be one of train, eval, .*received: 'fly'"):
        run_experiment(tiny(), "fly", tmp_path)
    config = tiny()
    config.trainer.train_steps = 0
    with pytest.raises(ConfigError, match="trainer.train_steps"):
        run_experiment(config, "train", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_that_does_not_fit_leaves_the_record_of_the_good_one(tmp_path):
    run_experiment(tiny(), "train", tmp_path, console=QUIET)
    before = (tmp_path / "params.yaml").read_text()
    other = tiny()
    other.trainer.train_steps *= 2
    other.trainer.optimizer_config.override({"optimizer": {"type": "adam"}})
    with pytest.raises(CheckpointError, match="optimizer.type: was sgd, is adam"):
        run_experiment(other, "train", tmp_path, console=QUIET)
    assert (tmp_path / "params.yaml").read_text() == before


def test_workers_that_would_train_each_on_its_own_are_an_error(tmp_path, monkeypatch):
    cluster = {"chief": ["host0:1"], "worker": ["host1:1"], "evaluator": ["host2:1"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    with pytest.raises(TrainingError, match="TF_CONFIG names 2 workers, .*=mirrored would each"):
        run_experiment(tiny(), "train", tmp_path)
    of_one = {"cluster": {"worker": ["host0:1"]}, "task": task}
    monkeypatch.setenv("TF_CONFIG", json.dumps(of_one))
    assert run_experiment(tiny(), "train", tmp_path, console=QUIET)


def test_a_directory_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="must be a directory of this machine, got 'gs://x'"):
        run_experiment(tiny(), "train", "gs://x", console=QUIET)
    assert list(tmp_path.iterdir()) == []
