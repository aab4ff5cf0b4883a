import math

import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import LrConfig
from tests.schedules.common import lr_config, rate

STEPS = [0, 1, 2, 99, 100, 101, 899, 900, 901, 999, 1000, 1001, 10000]


@pytest.mark.parametrize("power", [-0.5, -1.0, 0.25])
def test_power(power):
    config = lr_config("power", initial_learning_rate=0.3, power=power)
    # Two implementations of pow in float64.
    np.testing.assert_allclose(
        rate(config, STEPS), [0.3 * max(s, 1) ** power for s in STEPS], rtol=1e-14
    )


def test_power_has_no_offset_as_in_model_garden():
    assert LrConfig().power.field_names() == ["name", "initial_learning_rate", "power"]


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

    np.testing.assert_allclose(rate(config, STEPS), [reference(s) for s in STEPS], rtol=1e-13)


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
    expected = [0.3 / math.sqrt(max(s, 100) / 100) for s in STEPS]
    np.testing.assert_allclose(rate(config, STEPS), expected, rtol=1e-15)
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
def test_errors(name, settings, message):
    with pytest.raises(ConfigError, match=rf"{name}\.{message}"):
        LrConfig({"type": name, name: settings}).validate()
