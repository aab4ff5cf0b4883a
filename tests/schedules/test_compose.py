import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import (
    BaseLrConfig,
    LrConfig,
    WarmupConfig,
    check_schedule,
    curve,
    schedule_problems,
)
from tests.schedules.common import lr_config, rate, warmup_config

W = 4


@pytest.fixture
def line():
    """1.0 at step 0, and 1/16 less with each step."""
    return lr_config("linear", initial_learning_rate=1.0, decay_steps=16)


def _warmup(mode, **settings):
    return warmup_config(
        "linear", **{"warmup_steps": W, "warmup_learning_rate": 0.25, "mode": mode, **settings}
    )


def test_replace_meets_the_learning_rate_and_takes_no_steps_from_it(line):
    # lr(4) = 0.75, to which the warmup leads.
    assert rate(line, [0, 1, 2, 3, 4, 5, 16], _warmup("replace")) == [
        *(0.25, 0.375, 0.5, 0.625),
        *(0.75, 0.6875, 0.0),
    ]


def test_delay_starts_the_learning_rate_after_the_warmup(line):
    assert rate(line, [0, 1, 2, 3, 4, 5, 16, 20], _warmup("delay")) == [
        *(0.25, 0.4375, 0.625, 0.8125),
        *(1.0, 0.9375, 0.25, 0.0),
    ]


def test_delay_never_asks_for_negative_steps():
    class Root(BaseLrConfig):
        def value(self, step, xp):
            return 1.0 + xp.sqrt(step)

    with np.errstate(invalid="raise"):
        assert rate(Root(), [0, 4, 8], _warmup("delay")) == [0.25, 1.0, 3.0]


def test_multiply_is_a_factor_that_ends_at_one(line):
    # The factor is 0.25, 0.4375, 0.625, 0.8125, 1.
    assert rate(line, [0, 1, 2, 3, 4, 5, 16], _warmup("multiply")) == [
        *(0.25, 0.4375 * 15 / 16, 0.625 * 14 / 16, 0.8125 * 13 / 16),
        *(0.75, 0.6875, 0.0),
    ]


def test_multiply_starts_at_the_warmups_rate_whatever_the_learning_rate(line):
    line.initial_learning_rate = 0.1
    assert rate(line, 0, _warmup("multiply")) == 0.25


@pytest.mark.parametrize("mode", ["replace", "delay", "multiply"])
@pytest.mark.parametrize("name", ["linear", "polynomial", "cosine", "exponential"])
def test_no_jump_where_the_warmup_ends(line, name, mode):
    warmup = warmup_config(name, warmup_steps=10, mode=mode)
    line.decay_steps = 10**6
    values = np.array(rate(line, range(12), warmup))
    # Every step of the warmup is a step up, the last one too, and no larger than those before
    # (the exponential one grows, from 0.002 to 1 in ten steps, by less than 2 each time).
    assert values[10] - values[9] > 0
    assert values[10] - values[9] <= np.diff(values[:10]).max() * 2
    assert abs(values[11] - values[10]) < 2e-6


def test_the_offset_is_the_learning_rates_own(line):
    line.offset = 2
    assert rate(line, [0, 4, 6], _warmup("replace")) == [0.25, 0.875, 0.75]
    assert rate(line, [0, 4, 6, 8], _warmup("delay")) == [0.25, 1.0, 1.0, 0.875]


def test_a_factor_needs_a_rate_to_start_from():
    zero = lr_config("step_cosine_with_offset", boundaries=[0, 10], values=[0.0, 1.0])
    chosen = WarmupConfig(
        {
            "type": "linear",
            "linear": {"warmup_steps": 4, "warmup_learning_rate": 0.1, "mode": "multiply"},
        }
    )
    (problem,) = schedule_problems(zero, chosen.linear)
    assert problem.path == "linear.mode"
    with pytest.raises(ConfigError, match=r"linear\.mode: cannot be `multiply`: .* is 0 at step 0"):
        curve(zero, chosen.linear, [0])
    chosen.linear.warmup_steps = 0
    assert schedule_problems(zero, chosen.linear) == []


def test_a_factor_on_a_rate_that_starts_at_zero():
    # From 0 to 1 in eight steps, along half a cosine; the factor is s / 4.
    zero = lr_config("step_cosine_with_offset", boundaries=[0, 8], values=[0.0, 1.0])
    plain = rate(zero, range(6))
    values = rate(zero, range(6), _warmup("multiply", warmup_learning_rate=0))
    expected = [lr * min(s / 4, 1) for s, lr in enumerate(plain)]
    np.testing.assert_allclose(values, expected, rtol=1e-15)


def test_all_problems_at_once():
    lr = LrConfig({"type": "linear", "linear": {"initial_learning_rate": 0.1}})
    warmup = WarmupConfig({"type": "linear"})
    with pytest.raises(ConfigError) as error:
        check_schedule(lr.get(), warmup.get())
    assert [problem.path for problem in error.value.problems] == [
        "linear.decay_steps",
        "linear.warmup_steps",
    ]


@pytest.mark.parametrize("steps", [-1, [0, -1], float("nan")])
def test_steps_are_not_negative(line, steps):
    with pytest.raises(ValueError, match="`steps` must be >= 0"):
        curve(line, None, steps)


def test_steps_may_be_any_sequence(line):
    expected = [1.0, 0.9375]
    for steps in ([0, 1], (0, 1), range(2), np.arange(2, dtype="int32"), np.arange(2.0)):
        assert rate(line, steps) == expected
