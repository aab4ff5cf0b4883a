import math

import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import WarmupConfig
from tests.schedules.common import lr_config, rate, warmup_config

W = 10
TARGET = 0.5

_FORMULAS = {
    "linear": lambda s, w0: w0 + (TARGET - w0) * s / W,
    "constant": lambda s, w0: w0,
    "cosine": lambda s, w0: w0 + (TARGET - w0) * (1 - math.cos(math.pi * s / W)) / 2,
    "exponential": lambda s, w0: w0 * (TARGET / w0) ** (s / W),
}


@pytest.mark.parametrize("start", [0.01, 0.5, 2.0])
@pytest.mark.parametrize("name", list(_FORMULAS))
def test_formula(name, start):
    warmup = warmup_config(name, warmup_steps=W, warmup_learning_rate=start)
    constant = lr_config("constant", learning_rate=TARGET)
    expected = [_FORMULAS[name](s, start) for s in range(W)] + [TARGET, TARGET]
    np.testing.assert_allclose(rate(constant, range(W + 2), warmup), expected, rtol=1e-13)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial(power):
    warmup = warmup_config("polynomial", warmup_steps=W, power=power)
    constant = lr_config("constant", learning_rate=TARGET)
    expected = [TARGET * (max(s, 1) / W) ** power for s in range(W)] + [TARGET, TARGET]
    values = rate(constant, range(W + 2), warmup)
    np.testing.assert_allclose(values, expected, rtol=1e-14)
    assert values[0] == values[1]


@pytest.mark.parametrize("name", ["linear", "polynomial", "constant", "cosine", "exponential"])
def test_one_step_and_none(name):
    constant = lr_config("constant", learning_rate=TARGET)
    assert rate(constant, [0, 1], warmup_config(name, warmup_steps=0)) == [TARGET, TARGET]
    first, second = rate(constant, [0, 1], warmup_config(name, warmup_steps=1))
    # A polynomial has no start of its own: its step 0 is its step 1, the target.
    assert first == (TARGET if name == "polynomial" else 0.002)
    assert second == TARGET


def test_defaults_are_model_gardens():
    config = WarmupConfig()
    assert config.linear.warmup_learning_rate == 0
    assert config.polynomial.power == 1
    assert (config.linear.name, config.polynomial.name) == ("linear", "polynomial")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("linear", {}, "warmup_steps: a value is required"),
        ("linear", {"warmup_steps": -1}, "warmup_steps: must be >= 0, got -1"),
        ("linear", {"warmup_learning_rate": -0.1}, "warmup_learning_rate: must be >= 0, got -0.1"),
        ("linear", {"mode": "add"}, "mode: must be one of 'replace', 'delay' or 'multiply'"),
        ("linear", {"power": 2}, "power: unknown key"),
        ("polynomial", {"power": 0}, "power: must be > 0, got 0"),
        ("exponential", {"warmup_learning_rate": 0}, "warmup_learning_rate: must be > 0, got 0"),
        ("exponential", {"warmup_steps": 1}, "warmup_learning_rate: a value is required"),
    ],
)
def test_errors(name, settings, message):
    with pytest.raises(ConfigError, match=rf"{name}\.{message}"):
        WarmupConfig({"type": name, name: settings}).validate()
