import json
from importlib import metadata

import pytest

from optimization.training import NonFiniteLossError, run_experiment
from optimization.training.results import read_results, update_results, write_json
from tests.training.tiny import quiet, tiny


def test_what_others_wrote_stays(tmp_path):
    update_results(tmp_path, {"trial": 3, "status": "running"})
    update_results(tmp_path, {"status": "finished"})
    assert read_results(tmp_path) == {"trial": 3, "status": "finished"}


def test_a_damaged_file_is_replaced(tmp_path):
    (tmp_path / "results.json").write_text("{")
    update_results(tmp_path, {"status": "running"})
    assert read_results(tmp_path) == {"status": "running"}


def test_numbers_that_json_has_not_are_null(tmp_path):
    write_json(tmp_path / "x.json", {"a": [float("nan"), 1.0], "b": {"c": float("inf")}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.0], "b": {"c": None}}


@pytest.mark.slow
def test_every_training_has_its_results(tmp_path):
    best = "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=mae"
    config = tiny(best, "trainer.best_checkpoint_metric_comp=lower")
    results = run_experiment(config, "train_and_eval", tmp_path, console=quiet())
    found = read_results(tmp_path)
    assert found["experiment"] == "tiny"
    assert (found["mode"], found["status"], found["error"]) == ("train_and_eval", "finished", None)
    assert (found["steps"], found["train_steps"], found["stopped_early"]) == (12, 12, False)
    assert found["final"] == results
    assert found["best"]["step"] == 12  # of a loss that falls
    assert found["best"]["metrics"]["mae"] == results["validation mae"]
    assert found["seconds"] > 0
    assert (tmp_path / found["settings"]).is_file()
    assert found["versions"]["keras"] == metadata.version("keras")
    # Where nothing is left to train, it stays.
    before = (tmp_path / "results.json").read_bytes()
    run_experiment(config, "train_and_eval", tmp_path, console=quiet())
    assert (tmp_path / "results.json").read_bytes() == before
    # The time of what goes on is added.
    longer = tiny(best, "trainer.best_checkpoint_metric_comp=lower,trainer.train_steps=14")
    run_experiment(longer, "train", tmp_path, console=quiet())
    again = read_results(tmp_path)
    assert (again["steps"], again["mode"]) == (14, "train")
    assert again["seconds"] > found["seconds"]


@pytest.mark.slow
def test_a_failure_is_recorded(tmp_path):
    rate = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=1e30"
    with pytest.raises(NonFiniteLossError):
        run_experiment(tiny(rate), "train", tmp_path, console=quiet())
    found = read_results(tmp_path)
    assert found["status"] == "failed"
    assert found["error"].startswith("NonFiniteLossError: the loss is")


@pytest.mark.slow
def test_an_interruption_is_recorded(tmp_path):
    def interrupt(step, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(tiny(), "train_and_eval", tmp_path, console=quiet(), on_evaluation=interrupt)
    assert read_results(tmp_path)["status"] == "interrupted"
    assert read_results(tmp_path)["steps"] == 6
