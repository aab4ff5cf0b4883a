import pytest

from optimization import ConfigError, TrainerConfig
from optimization.configs.early_stopping import EarlyStoppingConfig
from tests.training.tiny import tiny


def test_the_loss_is_to_fall_and_no_other_metric_is_guessed():
    assert not EarlyStoppingConfig(patience=1).higher
    assert EarlyStoppingConfig(patience=1, metric="accuracy", mode="max").higher
    with pytest.raises(ConfigError, match="mode: must be `min` or `max`: which .*'accuracy'"):
        EarlyStoppingConfig(patience=1, metric="accuracy").validate()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "early_stopping.patience: a value is required"),
        ({"patience": 0}, "early_stopping.patience: must be > 0, got 0"),
        ({"patience": 1, "min_delta": -1.0}, "early_stopping.min_delta: must be >= 0, got -1"),
        ({"patience": 1, "mode": "high"}, "early_stopping.mode: .*'high'"),
        ({"patients": 1}, "early_stopping.patients: unknown key; did you mean 'patience'?"),
    ],
)
def test_mistakes_are_told(section, message):
    with pytest.raises(ConfigError, match=message):
        TrainerConfig(early_stopping=section).validate()


@pytest.mark.parametrize(
    ("mode", "interval", "message"),
    [
        ("train", 6, "early_stopping: it follows the validation, which the mode 'train' leaves"),
        ("train_and_eval", 12, "validation_interval: must be < `train_steps` 12: `early_stopping`"),
    ],
)
def test_a_stop_that_could_never_come_is_an_error(mode, interval, message):
    config = tiny()
    config.trainer.early_stopping = {"patience": 1}
    config.trainer.validation_interval = interval
    (problem,) = config.problems_in_mode(mode)
    assert message in str(problem)
