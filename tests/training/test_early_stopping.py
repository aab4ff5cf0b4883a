import json

import pytest

from optimization.configs.early_stopping import EarlyStoppingConfig
from optimization.training import TrainingError, run_experiment
from optimization.training.following import EarlyStopper
from tests.training.tiny import assert_same_bits, quiet, tiny, trainer, weights

STOP = "trainer.early_stopping"
# Nothing is good enough after the first of the evaluations, at steps 2, 4, 6, ...
STOPPING = (
    f"{STOP}.patience=3,{STOP}.min_delta=1e6",
    "trainer.validation_interval=2,trainer.checkpoint_interval=5,trainer.summary_interval=3",
)


def stopped_after(values, **settings):
    stopper = EarlyStopper(EarlyStoppingConfig({"patience": 2, **settings}))
    for number, value in enumerate(values, 1):
        stopper.step({"loss": value, "accuracy": value}, number)
        if stopper.stops:
            return number
    return None


@pytest.mark.parametrize(
    ("values", "settings", "end"),
    [
        ([3, 2, 1, 0], {}, None),
        ([3, 2, 2, 2], {}, 4),
        ([3, 4, 2, 4, 3, 1], {}, 5),
        ([3, 2.5, 2, 1.5], {"min_delta": 0.5}, None),  # 2 is better than 3 by more than 0.5
        ([3, 2.5, 2.5, 1.5], {"min_delta": 0.5}, 3),
        ([1, 2, 3], {"metric": "accuracy", "mode": "max"}, None),
        ([3, 2, 1], {"metric": "accuracy", "mode": "max"}, 3),
        ([float("nan"), float("nan"), 1.0], {}, 2),
        ([5], {"patience": 1}, None),
        ([5, 5], {"patience": 1}, 2),
    ],
)
def test_it_stops_after_patience_evaluations_that_were_no_better(values, settings, end):
    assert stopped_after(values, **settings) == end


def test_a_metric_that_is_not_reported_is_told():
    stopper = EarlyStopper(EarlyStoppingConfig(metric="acuracy", mode="max", patience=1))
    message = "early_stopping.metric: the validation reports no 'acuracy'; did you mean 'accuracy'"
    with pytest.raises(TrainingError, match=message):
        stopper.step({"loss": 1.0, "accuracy": 0.5}, 1)


@pytest.mark.slow
def test_the_training_ends_and_is_saved_there(tmp_path):
    config = tiny(*STOPPING)
    results = run_experiment(config, "train_and_eval", tmp_path, console=quiet())
    assert (tmp_path / "ckpt-8.index").exists()
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["status"], found["stopped_early"], found["steps"]) == ("finished", True, 8)
    assert found["best"]["step"] == 2
    assert found["final"] == results
    assert "validation loss" in results
    again = trainer(tmp_path, *STOPPING)
    assert again.train(evaluate=True)["validation loss"] == results["validation loss"]
    assert again.step == 8
    # With more patience it goes on.
    more = trainer(tmp_path, *STOPPING, f"{STOP}.patience=4")
    more.train(evaluate=True)
    assert more.step == 10


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 6])
def test_a_resumed_run_stops_where_it_would_have_bit_for_bit(tmp_path, steps):
    whole = trainer(tmp_path / "whole", *STOPPING)
    whole.train(evaluate=True)
    short = trainer(tmp_path / "parts", *STOPPING, f"trainer.train_steps={steps}")
    short.train(evaluate=True)
    resumed = trainer(tmp_path / "parts", *STOPPING)
    resumed.train(evaluate=True)
    assert whole.step == 8
    if steps == 6:  # whose end is evaluated in both
        assert resumed.step == 8
        assert_same_bits(weights(resumed), weights(whole))
        assert resumed.stopper.state.numpy() == whole.stopper.state.numpy()
    else:  # Step 5, the end of the first part, was evaluated as well.
        assert resumed.step == 6


@pytest.mark.slow
def test_a_run_may_begin_without_it_and_go_on_without_it(tmp_path):
    plain = "trainer.checkpoint_interval=4"
    trainer(tmp_path, plain, "trainer.train_steps=4").train(evaluate=True)
    stopping = trainer(tmp_path, *STOPPING, f"{STOP}.patience=2")
    stopping.train(evaluate=True)
    assert stopping.step == 10
    plain = trainer(tmp_path, plain)
    plain.train(evaluate=True)
    assert plain.step == 12


@pytest.mark.slow
def test_another_metric_starts_anew(tmp_path):
    trainer(tmp_path, *STOPPING, "trainer.train_steps=6").train(evaluate=True)
    other = trainer(tmp_path, *STOPPING, f"{STOP}.metric=mae,{STOP}.mode=min")
    other.restore()
    assert other.stopper.best is None
    other.stopper.step({"mae": 1.0}, 8)
    assert other.stopper.best == {"step": 8, "metric": "mae", "metrics": {"mae": 1.0}}
