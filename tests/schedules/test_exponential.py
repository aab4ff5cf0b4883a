import math

import keras
import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import LrConfig
from tests.schedules.common import keras_values, lr_config, rate

STEPS = [0, 1, 49, 50, 51, 99, 100, 101, 500, 501]


def _exponential(s, lr0, steps, factor, staircase):
    return lr0 * factor ** (s // steps if staircase else s / steps)


def _inverse_time(s, lr0, steps, factor, staircase):
    return lr0 / (1 + factor * (s // steps if staircase else s / steps))


@pytest.mark.parametrize("staircase", [None, False, True])
@pytest.mark.parametrize(
    ("name", "reference", "theirs"),
    [
        ("exponential", _exponential, keras.optimizers.schedules.ExponentialDecay),
        ("inverse_time", _inverse_time, keras.optimizers.schedules.InverseTimeDecay),
    ],
)
def test_against_the_formula_and_keras(name, reference, theirs, staircase):
    settings = {"initial_learning_rate": 0.3, "decay_steps": 50, "decay_rate": 0.83}
    config = lr_config(name, **settings, staircase=staircase)
    expected = [reference(s, 0.3, 50, 0.83, staircase) for s in STEPS]
    # Both sides are float64; the exponent is formed differently.
    np.testing.assert_allclose(rate(config, STEPS), expected, rtol=1e-14)
    # Keras raises a float32 base to a power of 10: ten times its rounding.
    theirs = theirs(**settings, staircase=bool(staircase))
    np.testing.assert_allclose(keras_values(theirs, STEPS), expected, rtol=2e-6)


def test_a_half_is_halved_exactly():
    config = lr_config("exponential", initial_learning_rate=1.0, decay_steps=7, decay_rate=0.5)
    assert rate(config, [0, 7, 14, 70]) == [1.0, 0.5, 0.25, 2.0**-10]


@pytest.mark.parametrize("name", ["exponential", "inverse_time"])
def test_stairs_begin_at_every_multiple(name):
    # 1 / 49 and 1 / 49 * 49 are rounded; the multiples of 49 are found all the same.
    config = lr_config(name, decay_steps=49, decay_rate=0.99, staircase=True)
    multiples = np.arange(1, 2000) * 49
    before, at, after = (np.array(rate(config, multiples + d)) for d in (-1, 0, 1))
    assert (before > at).all()
    assert (at == after).all()


def test_offset():
    config = lr_config("exponential", decay_steps=10, decay_rate=0.5, offset=20)
    assert rate(config, [0, 19, 20, 30]) == [0.1, 0.1, 0.1, 0.05]


def test_a_falling_rate_falls_to_zero():
    assert rate(lr_config("exponential", decay_rate=0.5, decay_steps=1), 10**6) == 0
    slow = rate(lr_config("inverse_time", decay_rate=1.0, decay_steps=1), 10**6)
    assert math.isclose(slow, 0.1 / (1 + 10**6))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay_steps": 0}, "decay_steps: must be > 0, got 0"),
        ({"decay_steps": 1.5}, "decay_steps: expected an integer, got 1.5"),
        ({"decay_rate": 0}, "decay_rate: must be > 0, got 0"),
        ({"initial_learning_rate": -1}, "initial_learning_rate: must be >= 0, got -1"),
        ({"staircase": 1}, "staircase: expected true or false"),
        ({}, "decay_rate: a value is required"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ConfigError, match=rf"exponential\.{message}"):
        LrConfig({"type": "exponential", "exponential": settings}).validate()
