import math

import keras
import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import LrConfig
from tests.schedules.common import FLOAT32, keras_values, lr_config, rate


def _half_cosine(u):
    return 0.5 * (1 + math.cos(math.pi * u))


# ---- cosine ------------------------------------------------------------------------------------

STEPS = [0, 1, 250, 499, 500, 501, 999, 1000, 1001, 10000]


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0, 5.0])
def test_cosine_against_the_formula_and_keras(alpha):
    settings = {"initial_learning_rate": 0.4, "decay_steps": 1000, "alpha": alpha}
    expected = [0.4 * (alpha + (1 - alpha) * _half_cosine(min(s, 1000) / 1000)) for s in STEPS]
    # float64, but the reference cancels near the end.
    np.testing.assert_allclose(rate(lr_config("cosine", **settings), STEPS), expected, atol=1e-16)
    # Keras cancels in float32: an error of 2**-25 of the rate at any step.
    theirs = keras.optimizers.schedules.CosineDecay(**settings)
    np.testing.assert_allclose(keras_values(theirs, STEPS), expected, rtol=1e-6, atol=FLOAT32)


def test_cosine_keeps_its_digits_to_the_end():
    total = 8000
    last = rate(lr_config("cosine", initial_learning_rate=1.0, decay_steps=total), total - 1)
    series = math.pi / 2 / total
    assert math.isclose(last, series**2 * (1 - series**2 / 3), rel_tol=1e-12)


def test_what_float32_cannot_add_to_one_counts_as_zero():
    config = lr_config("cosine", initial_learning_rate=1.0, decay_steps=20_000, alpha=0.25)
    values = rate(config, [19_998, 19_999, 20_000])
    assert values[0] > 0.25
    assert values[1:] == [0.25, 0.25]


def test_cosine_offset():
    config = lr_config("cosine", initial_learning_rate=1.0, decay_steps=10, offset=100)
    values = rate(config, [0, 99, 100, 105, 110, 1000])
    np.testing.assert_allclose(values, [1, 1, 1, 0.5, 0, 0], rtol=1e-15)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -0.1}, "alpha: must be >= 0, got -0.1"),
        ({"decay_steps": 0}, "decay_steps: must be > 0, got 0"),
        ({"initial_learning_rate": "1e-3"}, "initial_learning_rate: expected a number"),
    ],
)
def test_cosine_errors(settings, message):
    with pytest.raises(ConfigError, match=rf"cosine\.{message}"):
        LrConfig({"type": "cosine", "cosine": settings})


# ---- cosine_restarts ---------------------------------------------------------------------------


def _restarts(s, lr0, first, t_mul, m_mul, alpha):
    start, length, height = 0, first, 1.0
    while s >= start + length:
        start, length, height = start + length, length * t_mul, height * m_mul
    return lr0 * (alpha + (1 - alpha) * height * _half_cosine((s - start) / length))


@pytest.mark.parametrize(
    ("t_mul", "m_mul", "alpha"),
    [(1, 1.0, 0.0), (1, 0.5, 0.1), (2, 1.0, 0.0), (2.0, 0.9, 0.2), (3, 0.0, 0.1), (1.5, 0.7, 0.0)],
)
def test_restarts_against_the_formula_and_keras(t_mul, m_mul, alpha):
    settings = {
        "initial_learning_rate": 0.4,
        "first_decay_steps": 64,
        "t_mul": t_mul,
        "m_mul": m_mul,
        "alpha": alpha,
    }
    steps = [0, 1, 32, 63, 64, 65, 159, 160, 161, 191, 192, 193, 447, 448, 449, 1000, 4480]
    expected = [_restarts(s, 0.4, 64, t_mul, m_mul, alpha) for s in steps]
    values = rate(lr_config("cosine_restarts", **settings), steps)
    np.testing.assert_allclose(values, expected, rtol=1e-13, atol=1e-16)
    theirs = keras_values(keras.optimizers.schedules.CosineDecayRestarts(**settings), steps)
    # Keras finds the cycle by a float32 logarithm: at the restarts it may be in the cycle before.
    inside = [i for i, s in enumerate(steps) if s not in (64, 160, 192, 448)]
    np.testing.assert_allclose(theirs[inside], np.array(expected)[inside], rtol=2e-5, atol=1e-6)


def test_restarts_far_from_the_start():
    config = lr_config("cosine_restarts", initial_learning_rate=1.0, first_decay_steps=1, t_mul=2)
    restarts = [2**k - 1 for k in range(1, 40)]
    assert rate(config, restarts) == [1.0] * 39
    assert max(rate(config, [step - 1 for step in restarts[2:]])) < 0.2


def test_a_cycle_that_is_a_whole_number_only_but_for_rounding():
    # In float64 100 + 220 + 484.00000000000006 is a little more than 804.
    config = lr_config(
        "cosine_restarts", initial_learning_rate=1.0, first_decay_steps=100, t_mul=2.2
    )
    assert rate(config, [100, 320, 804]) == [1.0, 1.0, 1.0]
    assert max(rate(config, [99, 319, 803])) < 1e-3


def test_restarts_after_a_fraction_of_a_step():
    # Cycles of 3, 4.5 and 6.75 steps: the second restart is at 7.5.
    config = lr_config("cosine_restarts", initial_learning_rate=1.0, first_decay_steps=3, t_mul=1.5)
    expected = [_half_cosine(4 / 4.5), _half_cosine(0.5 / 6.75)]
    np.testing.assert_allclose(rate(config, [7, 8]), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"t_mul": 0.5}, "t_mul: must be >= 1, got 0.5"),
        ({"t_mul": 1.0001}, "t_mul: must be 1 or at least 1.001, got 1.0001"),
        ({"m_mul": 1.5}, "m_mul: must be <= 1, got 1.5"),
        ({"first_decay_steps": 0}, "first_decay_steps: must be > 0"),
    ],
)
def test_restarts_errors(settings, message):
    base = {"initial_learning_rate": 0.1, "first_decay_steps": 10}
    with pytest.raises(ConfigError, match=rf"cosine_restarts\.{message}"):
        LrConfig({"type": "cosine_restarts", "cosine_restarts": {**base, **settings}}).validate()


# ---- step_cosine_with_offset -------------------------------------------------------------------


def _step_cosine(s, boundaries, values):
    if s < boundaries[0]:
        return values[0]
    for i in range(len(boundaries) - 1):
        if s < boundaries[i + 1]:
            u = (s - boundaries[i]) / (boundaries[i + 1] - boundaries[i])
            return values[i + 1] + (values[i] - values[i + 1]) * _half_cosine(u)
    return values[-1]


@pytest.mark.parametrize(
    ("boundaries", "values"),
    [
        ([0, 100, 300], [1.0, 0.5, 0.1]),
        ([0, 100, 300], [0.0, 0.5, 0.0]),  # up, then down
        ([50, 60], [0.7, 0.2]),
        ([0], [0.3]),
    ],
)
def test_step_cosine_against_the_formula(boundaries, values):
    steps = sorted({0, 1, 30, 55, 200, 3000} | {b + d for b in boundaries for d in (-1, 0, 1)})
    steps = [step for step in steps if step >= 0]
    config = lr_config("step_cosine_with_offset", boundaries=boundaries, values=values)
    expected = [_step_cosine(s, boundaries, values) for s in steps]
    np.testing.assert_allclose(rate(config, steps), expected, rtol=1e-13, atol=1e-16)


def test_step_cosine_holds_its_last_value_where_the_ancestor_divides_by_zero():
    config = lr_config(
        "step_cosine_with_offset", boundaries=[0, 10, 20], values=[1.0, 0.5, 0.25], offset=3
    )
    assert rate(config, [0, 2, 3, 23, 24, 10**6]) == [1.0, 1.0, 1.0, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"boundaries": [0, 1], "values": [1.0]},
            "values: must have as many values as .* 2, got 1",
        ),
        ({"boundaries": [], "values": []}, "boundaries: must have at least one step"),
        ({"boundaries": [5, 1], "values": [1, 1]}, "boundaries: must be strictly increasing"),
    ],
)
def test_step_cosine_errors(settings, message):
    name = "step_cosine_with_offset"
    with pytest.raises(ConfigError, match=rf"{name}\.{message}"):
        LrConfig({"type": name, name: settings}).validate()
