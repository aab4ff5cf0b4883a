import pytest

from optimization.training import TrainingError
from optimization.training.finding import find_rate
from tests.training.tiny import tiny

pytestmark = pytest.mark.slow
SECTION = "trainer.optimizer_config"


def test_the_rate_of_linear_regression_is_found():
    # The largest curvature of the mean squared error is that of the data, about 2 * 2.5.
    found = find_rate(tiny(f"{SECTION}.optimizer.sgd.momentum=0"), lowest=1e-3, highest=100.0)
    assert found.diverged
    assert 0.01 < found.steepest < 2 / 2.0
    assert 0.1 < found.rates[-1] < 10


def test_rates_are_those_to_be_written_where_they_are_scaled_with_the_batch():
    # 8 examples of 2: what is written counts four times.
    overrides = (f"{SECTION}.optimizer.sgd.momentum=0", f"{SECTION}.optimizer.type=sgd")
    plain = find_rate(tiny(*overrides), lowest=4e-3, highest=4.0, steps=20)
    scaled = find_rate(
        tiny(*overrides, f"{SECTION}.lr_scaling.base_batch_size=2"),
        lowest=1e-3,
        highest=1.0,
        steps=20,
    )
    assert scaled.losses == pytest.approx(plain.losses, rel=1e-4)
    assert scaled.steepest == pytest.approx(plain.steepest / 4)


def test_a_loss_that_is_not_finite_ends_the_test_and_is_no_error():
    raising = f"{SECTION}.optimizer.sgd.on_nonfinite=raise"
    assert find_rate(tiny(raising), lowest=1e30, highest=1e38, steps=5).diverged


def test_an_optimizer_with_its_own_rate_is_told():
    own = (
        f"{SECTION}.optimizer.type=adafactor,{SECTION}.optimizer.adafactor.step_size=relative",
        f"{SECTION}.learning_rate.type=null,{SECTION}.warmup.type=null",
    )
    with pytest.raises(TrainingError, match="adafactor has a learning rate of its own"):
        find_rate(tiny(*own))
