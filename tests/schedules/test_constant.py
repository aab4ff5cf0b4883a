import keras
import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import LrConfig
from tests.schedules.common import lr_config, rate


def test_constant():
    assert rate(lr_config("constant", learning_rate=0.3), [0, 1, 10**9]) == [0.3] * 3
    assert LrConfig({"type": "constant"}).get().learning_rate == 0.1


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "0.1", None, True])
def test_constant_must_be_a_sensible_number(value):
    with pytest.raises(ConfigError, match=r"^constant\.learning_rate: "):
        LrConfig({"type": "constant", "constant": {"learning_rate": value}})


STEPWISE = {"boundaries": [10, 20, 2**24 - 1], "values": [0.1, 0.01, 0.001, 0.0]}


@pytest.mark.parametrize(
    ("step", "value"),
    [
        (0, 0.1),
        (9, 0.1),
        (10, 0.1),  # at a boundary the old value still holds
        (11, 0.01),
        (20, 0.01),
        (21, 0.001),
        (2**24 - 1, 0.001),
        (2**24, 0.0),
        (10**9, 0.0),
    ],
)
def test_stepwise(step, value):
    assert rate(lr_config("stepwise", **STEPWISE), step) == value
    # Keras' schedule has float32 values.
    theirs = keras.optimizers.schedules.PiecewiseConstantDecay(**STEPWISE)(step)
    assert float(keras.ops.convert_to_numpy(theirs)) == np.float32(value)


def test_stepwise_offset():
    config = lr_config("stepwise", **STEPWISE, offset=5)
    assert rate(config, [0, 4, 5, 15, 16, 26]) == [0.1, 0.1, 0.1, 0.1, 0.01, 0.001]
    config.offset = -5  # as if 5 steps had been done before
    assert rate(config, [0, 5, 6]) == [0.1, 0.1, 0.01]


def test_stepwise_without_boundaries():
    assert rate(lr_config("stepwise", boundaries=[], values=[0.2]), [0, 5]) == [0.2, 0.2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"boundaries": [1, 2], "values": [1.0, 2.0]},
            r"stepwise\.values: must have one value more than `boundaries`, 3, got 2",
        ),
        ({"boundaries": [2, 2]}, r"stepwise\.boundaries: must be strictly increasing"),
        ({"boundaries": [-1]}, r"stepwise\.boundaries\[0\]: must be >= 0, got -1"),
        ({"values": [0.1, -0.1]}, r"stepwise\.values\[1\]: must be >= 0, got -0.1"),
        ({"values": [0.1]}, r"stepwise\.boundaries: a value is required"),
        ({"offset": 0.5}, r"stepwise\.offset: expected an integer, got 0.5"),
        ({"name": "two words"}, r"stepwise\.name: String should match pattern"),
    ],
)
def test_stepwise_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        LrConfig({"type": "stepwise", "stepwise": settings}).validate()
