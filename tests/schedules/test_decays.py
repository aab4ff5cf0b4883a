import math

import keras
import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import LrConfig
from optimization.schedules.keras_schedules import build_schedule
from tests.schedules.common import RTOL, keras_values, lr_config, rate

EXPONENTIAL_STEPS = [0, 1, 49, 50, 51, 99, 100, 101, 500, 501]


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
    expected = [reference(s, 0.3, 50, 0.83, staircase) for s in EXPONENTIAL_STEPS]
    # Both sides are float64; the exponent is formed differently.
    np.testing.assert_allclose(rate(config, EXPONENTIAL_STEPS), expected, rtol=1e-14)
    # Keras raises a float32 base to a power of 10: ten times its rounding.
    theirs = theirs(**settings, staircase=bool(staircase))
    np.testing.assert_allclose(keras_values(theirs, EXPONENTIAL_STEPS), expected, rtol=2e-6)


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


POLYNOMIAL_STEPS = [0, 1, 50, 99, 100, 101, 199, 200, 201, 300, 1000, 1001]


def _polynomial(s, lr0, total, end, power, cycle):
    if cycle:
        total *= max(1, math.ceil(s / total))
    s = min(s, total)
    return (lr0 - end) * (1 - s / total) ** power + end


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("end", [0.0, 0.02, 0.5])
def test_polynomials_against_the_formula_and_keras(power, end, cycle):
    settings = {
        "initial_learning_rate": 0.3,
        "decay_steps": 100,
        "end_learning_rate": end,
        "power": power,
        "cycle": cycle,
    }
    expected = [_polynomial(s, 0.3, 100, end, power, cycle) for s in POLYNOMIAL_STEPS]
    # Both sides are float64; 1 - s / total loses digits near the end.
    np.testing.assert_allclose(
        rate(lr_config("polynomial", **settings), POLYNOMIAL_STEPS), expected, rtol=1e-12
    )
    # Keras subtracts s / total from 1 in float32: an error of 2**-24 before the root is taken.
    theirs = keras.optimizers.schedules.PolynomialDecay(**settings)
    np.testing.assert_allclose(
        keras_values(theirs, POLYNOMIAL_STEPS), expected, rtol=1e-5, atol=1e-9
    )


def test_defaults_are_model_gardens():
    config = LrConfig({"type": "polynomial"}).polynomial
    assert (config.end_learning_rate, config.power, config.cycle) == (0.0001, 1.0, False)
    assert config.name == "PolynomialDecay"


def test_linear_is_a_polynomial():
    settings = {"initial_learning_rate": 0.3, "decay_steps": 70, "offset": 5}
    polynomial = lr_config("polynomial", **settings, end_learning_rate=0.0)
    assert rate(lr_config("linear", **settings), POLYNOMIAL_STEPS) == rate(
        polynomial, POLYNOMIAL_STEPS
    )


def test_linear_at_its_ends():
    config = lr_config("linear", initial_learning_rate=1.0, decay_steps=4, end_learning_rate=0.5)
    assert rate(config, [0, 1, 2, 3, 4, 5, 40]) == [1.0, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", ["polynomial", "linear"])
def test_offset_of_a_polynomial(name):
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
def test_errors_of_polynomials(settings, message):
    with pytest.raises(ConfigError, match=rf"polynomial\.{message}"):
        LrConfig({"type": "polynomial", "polynomial": settings}).validate()


POWER_STEPS = [0, 1, 2, 99, 100, 101, 899, 900, 901, 999, 1000, 1001, 10000]


@pytest.mark.parametrize("power", [-0.5, -1.0, 0.25])
def test_power(power):
    config = lr_config("power", initial_learning_rate=0.3, power=power)
    # Two implementations of pow in float64.
    np.testing.assert_allclose(
        rate(config, POWER_STEPS), [0.3 * max(s, 1) ** power for s in POWER_STEPS], rtol=1e-14
    )


def test_power_has_no_offset_as_in_model_garden():
    assert "offset" not in LrConfig().power.field_names()


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
def test_power_linear(fraction):
    config = lr_config(
        "power_linear",
        initial_learning_rate=0.3,
        total_decay_steps=1000,
        linear_decay_fraction=fraction,
    )

    def reference(s):
        line = min(1.0, (1000 - s) / (1000 * fraction)) if fraction else 1.0
        return 0.3 * max(s, 1) ** -0.5 * max(line, 0.0)

    np.testing.assert_allclose(
        rate(config, POWER_STEPS), [reference(s) for s in POWER_STEPS], rtol=1e-13
    )


def test_power_linear_offset():
    config = lr_config("power_linear", initial_learning_rate=1.0, total_decay_steps=16, offset=8)
    assert rate(config, [0, 8, 9, 12, 24, 999]) == [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]


def test_power_with_offset():
    config = lr_config(
        "power_with_offset", initial_learning_rate=1.0, offset=10, pre_offset_learning_rate=0.75
    )
    # Up to `offset` the constant; then the power, which starts above it.
    assert rate(config, [0, 9, 10, 11, 14, 26]) == [0.75, 0.75, 0.75, 0.75, 0.5, 0.25]
    config.initial_learning_rate = 0.5  # now the power starts below the constant
    assert rate(config, [9, 10, 11, 14]) == [0.75, 0.75, 0.5, 0.25]
    assert LrConfig().power_with_offset.pre_offset_learning_rate == 1e6


def test_inverse_sqrt():
    config = lr_config("inverse_sqrt", initial_learning_rate=0.3, timescale=100)
    expected = [0.3 / math.sqrt(max(s, 100) / 100) for s in POWER_STEPS]
    np.testing.assert_allclose(rate(config, POWER_STEPS), expected, rtol=1e-15)
    assert rate(config, [0, 100, 400]) == [0.3, 0.3, 0.15]
    config.offset = 50
    assert rate(config, [150, 450]) == [0.3, 0.15]


def test_inverse_sqrt_is_transformers_schedule_after_a_warmup_of_its_timescale():
    warmup = timescale = 100

    def transformers(s):
        shift = timescale - warmup
        return 1.0 / math.sqrt((s + shift) / timescale)

    config = lr_config("inverse_sqrt", initial_learning_rate=1.0, timescale=timescale)
    steps = [100, 101, 150, 10000]
    np.testing.assert_allclose(rate(config, steps), [transformers(s) for s in steps], rtol=1e-15)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("power", {}, "initial_learning_rate: a value is required"),
        ("power", {"power": "x"}, "power: expected a number"),
        ("power_linear", {"total_decay_steps": 0}, "total_decay_steps: must be > 0"),
        ("power_linear", {"linear_decay_fraction": 2}, "linear_decay_fraction: must be <= 1"),
        (
            "power_with_offset",
            {"pre_offset_learning_rate": -1},
            "pre_offset_learning_rate: must be >= 0",
        ),
        ("inverse_sqrt", {"timescale": 0}, "timescale: must be > 0"),
    ],
)
def test_errors_of_powers(name, settings, message):
    with pytest.raises(ConfigError, match=rf"{name}\.{message}"):
        LrConfig({"type": name, name: settings}).validate()


def test_a_hundredth_then_the_inverse_square_root():
    config = lr_config("relative_step")
    steps = [0, 1, 9998, 9999, 10000, 39999, 10**8 - 1]
    expected = [1e-2, 1e-2, 1e-2, 1e-2, 10001**-0.5, 5e-3, 1e-4]
    np.testing.assert_allclose(rate(config, steps), expected, rtol=1e-12)


def test_with_warmup_init_a_ramp_then_the_inverse_square_root():
    config = lr_config("relative_step", warmup_init=True)
    steps = [0, 1, 99, 9998, 9999, 10000, 39999]
    expected = [1e-6, 2e-6, 1e-4, 9.999e-3, 1e-2, 10001**-0.5, 5e-3]
    np.testing.assert_allclose(rate(config, steps), expected, rtol=1e-12)


@pytest.mark.parametrize("warmup_init", [False, True])
def test_the_schedule_of_transformers(warmup_init):
    pytest.importorskip("torch", reason="transformers' Adafactor needs PyTorch")
    transformers = pytest.importorskip("transformers.optimization", reason="is not installed")
    group = {
        "lr": None,
        "relative_step": True,
        "warmup_init": warmup_init,
        "scale_parameter": False,
    }
    steps = [0, 1, 500, 9998, 9999, 10000, 123456]
    theirs = [transformers.Adafactor._get_lr(group, {"step": step + 1}) for step in steps]
    config = lr_config("relative_step", warmup_init=warmup_init)
    np.testing.assert_allclose(rate(config, steps), theirs, rtol=1e-12)


def test_keras_and_numpy_agree():
    config = lr_config("relative_step", warmup_init=True)
    steps = [0, 1, 33, 9998, 9999, 10000, 10**6]
    schedule = build_schedule(config)
    np.testing.assert_allclose(keras_values(schedule, steps), rate(config, steps), rtol=RTOL)


@pytest.mark.parametrize("batch", [64, 1024])
def test_power_law_against_the_formula(batch):
    tokens = batch * 4096
    settings = {"max_learning_rate": 0.02, "batch_size": batch, "tokens_per_step": tokens}
    config = lr_config("power_law", **settings)
    steps = [1, 2, 10, 999, 10**4, 10**6, 10**9]
    expected = [min(0.02, batch * 4.0 * (s * tokens) ** -0.51) for s in steps]
    np.testing.assert_allclose(rate(config, steps), expected, rtol=1e-12)
    assert rate(config, 0) == 0.02
    assert expected[0] == 0.02 > expected[-1]
    first = batch * 4.0 * tokens**-0.51
    in_steps = {"initial_learning_rate": first, "power": -0.51, "pre_offset_learning_rate": 0.02}
    same = lr_config("power_with_offset", **in_steps)
    np.testing.assert_allclose(rate(same, steps), expected, rtol=1e-12)
