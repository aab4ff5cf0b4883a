import pytest

from optimization import ConfigError
from optimization.training import TrainingError, run_experiment
from tests.training.tiny import assert_same_bits, tiny, trainer, weights

pytestmark = pytest.mark.slow

KIND = "hf_reduce_lr_on_plateau"
RATE = "trainer.optimizer_config.learning_rate"


def following(**settings):
    """Returns overrides for a rate that nothing is good enough to keep, and short intervals."""
    given = {
        "initial_learning_rate": 0.05,
        "patience": 1,
        "factor": 0.5,
        "threshold": 1e6,
        "threshold_mode": "abs",
        **settings,
    }
    return [
        f"{RATE}.type={KIND}",
        *(f"{RATE}.{KIND}.{name}={value}" for name, value in given.items()),
        "trainer.optimizer_config.warmup.type=null",
        "trainer.validation_interval=2",
        "trainer.checkpoint_interval=3",
    ]


def rate(a_trainer):
    return float(a_trainer.optimizer.learning_rate.numpy())


def test_the_rate_falls_after_evaluations_without_progress(tmp_path):
    one = trainer(tmp_path, *following())
    one.train(evaluate=True)
    # Six evaluations: the first is the best, each two after it halve the rate.
    assert rate(one) == pytest.approx(0.05 / 4)


@pytest.mark.parametrize("kind", ["hf_reduce_lr_on_plateau", "hf_greedy"])
@pytest.mark.parametrize("steps", [4, 6])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, steps, kind):
    overrides = [item.replace(KIND, kind) for item in following(patience=0)]
    whole = trainer(tmp_path / "whole", *overrides)
    whole.train(evaluate=True)
    trainer(tmp_path / "parts", *overrides, f"trainer.train_steps={steps}").train(evaluate=True)
    resumed = trainer(tmp_path / "parts", *overrides)
    resumed.train(evaluate=True)
    assert_same_bits(weights(resumed), weights(whole))
    assert (
        resumed._followers["learning_rate_state"].state.numpy()
        == whole._followers["learning_rate_state"].state.numpy()
    )
    assert rate(resumed) < 0.05


def test_a_run_killed_between_checkpoint_and_evaluation_goes_on_the_same(tmp_path):
    class KilledError(Exception):
        pass

    whole = trainer(tmp_path / "whole", *following())
    whole.train(evaluate=True)
    parts = trainer(tmp_path / "parts", *following())
    run_loop = parts._run_loop

    def killed_after(*args):
        if parts.step == 8:
            raise KilledError
        return run_loop(*args)

    parts._run_loop = killed_after
    with pytest.raises(KilledError):
        parts.train(evaluate=True)
    resumed = trainer(tmp_path / "parts", *following())
    resumed.train(evaluate=True)
    assert_same_bits(weights(resumed), weights(whole))
    assert (
        resumed._followers["learning_rate_state"].state.numpy()
        == whole._followers["learning_rate_state"].state.numpy()
    )


def test_an_evaluation_by_itself_changes_nothing(tmp_path):
    one = trainer(tmp_path, *following())
    one.train(evaluate=True)
    state = one._followers["learning_rate_state"].state.numpy()
    one.evaluate()
    again = trainer(tmp_path, *following())
    again.evaluate_checkpoint()
    again.train(evaluate=True)  # is done already
    assert again._followers["learning_rate_state"].state.numpy() == state
    assert rate(again) == rate(one)


def test_a_metric_that_the_validation_does_not_report(tmp_path):
    with pytest.raises(TrainingError, match="'accuracy'; the validation reports loss, mae"):
        trainer(tmp_path, *following(metric="accuracy")).train(evaluate=True)


def test_another_metric_than_the_loss(tmp_path):
    one = trainer(tmp_path, *following(metric="mae", mode="max"))
    one.train(evaluate=True)
    assert rate(one) == pytest.approx(0.05 / 4)


@pytest.mark.parametrize(
    ("mode", "override", "match"),
    [
        ("train", "trainer.train_steps=12", rf"{RATE}\.type: .*leaves out"),
        ("train_and_eval", "trainer.validation_interval=12", r"trainer\.validation_interval: "),
    ],
)
def test_without_validation_there_is_nothing_to_follow(tmp_path, mode, override, match):
    with pytest.raises(ConfigError, match=match):
        run_experiment(tiny(*following(), override), mode, tmp_path)
    if mode == "train":
        with pytest.raises(TrainingError, match="evaluate=True"):
            trainer(tmp_path, *following()).train()
