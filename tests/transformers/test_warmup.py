import json

import keras
import numpy as np
import pytest

from optimization.transformers import WarmUp
from tests.schedules.common import keras_values


def decay():
    return keras.optimizers.schedules.PolynomialDecay(0.2, 10, 0.02)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_a_power_up_and_then_the_schedule_from_its_start(power):
    schedule = WarmUp(0.2, decay(), 4, power=power)
    expected = [0.2 * (step / 4) ** power for step in range(4)]
    expected += [0.2 - 0.018 * min(step, 10) for step in range(12)]
    # A few float32 roundings.
    actual = [float(schedule(step)) for step in range(16)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert schedule(np.int64(3)) == schedule(keras.ops.convert_to_tensor(3, "int64"))


def test_no_steps_are_no_warmup():
    np.testing.assert_allclose(keras_values(WarmUp(0.2, decay(), 0), [0]), [0.2], rtol=1e-6)


def test_any_function_can_follow():
    values = [float(WarmUp(1.0, lambda step: 0.5, 2)(step)) for step in range(4)]
    assert values == [0.0, 0.5, 0.5, 0.5]


def test_it_loads_from_json():
    schedule = WarmUp(0.2, decay(), 4, power=2.0, name="up")
    for other in (
        WarmUp.from_config(schedule.get_config()),
        keras.optimizers.schedules.deserialize(
            json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
        ),
    ):
        assert type(other) is WarmUp
        assert other.get_config() == schedule.get_config()
        assert [float(other(s)) for s in range(6)] == [float(schedule(s)) for s in range(6)]
