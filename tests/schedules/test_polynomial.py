import math

import keras
import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import LrConfig
from tests.schedules.common import keras_values, lr_config, rate

STEPS = [0, 1, 50, 99, 100, 101, 199, 200, 201, 300, 1000, 1001]


def _polynomial(s, lr0, total, end, power, cycle):
    if cycle:
        total *= max(1, math.ceil(s / total))
    s = min(s, total)
    return (lr0 - end) * (1 - s / total) ** power + end


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("end", [0.0, 0.02, 0.5])
def test_against_the_formula_and_keras(power, end, cycle):
    settings = {
        "initial_learning_rate": 0.3,
        "decay_steps": 100,
        "end_learning_rate": end,
        "power": power,
        "cycle": cycle,
    }
    expected = [_polynomial(s, 0.3, 100, end, power, cycle) for s in STEPS]
    # Both sides are float64; 1 - s / total loses digits near the end.
    np.testing.assert_allclose(
        rate(lr_config("polynomial", **settings), STEPS), expected, rtol=1e-12
    )
    # Keras subtracts s / total from 1 in float32: an error of 2**-24 before the root is taken.
    theirs = keras.optimizers.schedules.PolynomialDecay(**settings)
    np.testing.assert_allclose(keras_values(theirs, STEPS), expected, rtol=1e-5, atol=1e-9)


def test_defaults_are_model_gardens():
    config = LrConfig({"type": "polynomial"}).polynomial
    assert (config.end_learning_rate, config.power, config.cycle) == (0.0001, 1.0, False)
    assert config.name == "PolynomialDecay"


def test_linear_is_a_polynomial():
    settings = {"initial_learning_rate": 0.3, "decay_steps": 70, "offset": 5}
    polynomial = lr_config("polynomial", **settings, end_learning_rate=0.0)
    assert rate(lr_config("linear", **settings), STEPS) == rate(polynomial, STEPS)


def test_linear_at_its_ends():
    config = lr_config("linear", initial_learning_rate=1.0, decay_steps=4, end_learning_rate=0.5)
    assert rate(config, [0, 1, 2, 3, 4, 5, 40]) == [1.0, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", ["polynomial", "linear"])
def test_offset(name):
    config = lr_config(
        name, initial_learning_rate=1.0, decay_steps=4, end_learning_rate=0.0, offset=10
    )
    assert rate(config, [0, 9, 10, 12, 14, 100]) == [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("decay_steps", [3, 7, 49, 1000])
def test_cycles_end_exactly_at_multiples(decay_steps):
    config = lr_config(
        "polynomial", decay_steps=decay_steps, end_learning_rate=0.001, power=1.0, cycle=True
    )
    multiples = np.arange(1, 1000) * decay_steps
    assert rate(config, multiples) == [0.001] * 999
    assert min(rate(config, multiples + 1)) > 0.001


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay_steps": -3}, "decay_steps: must be > 0, got -3"),
        ({"end_learning_rate": -1e-9}, "end_learning_rate: must be >= 0"),
        ({"power": 0}, "power: must be > 0, got 0"),
        ({"power": None}, "power: expected a number, got null; the default is 1.0"),
        ({"decay_steps": 10}, "initial_learning_rate: a value is required"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ConfigError, match=rf"polynomial\.{message}"):
        LrConfig({"type": "polynomial", "polynomial": settings}).validate()
