import math

import numpy as np
import pytest

from optimization.schedules import curve
from optimization.schedules.compose import checked_values
from optimization.schedules.scalars import SCALARS
from tests.schedules.common import T, lr_config, lr_examples, warmup_examples

STEPS = [0, 1, 2, 49, 50, 51, 99, 100, 101, 299, 300, 301, 600, 601, T - 1, T, T + 1, 10 * T, 2**24]


@pytest.mark.parametrize("config", [pytest.param(c, id=n) for n, c in lr_examples()])
def test_every_learning_rate_is_that_of_numpy(config):
    values = checked_values(config, None, STEPS)
    assert all(type(value) is float for value in values)
    np.testing.assert_allclose(values, curve(config, None, STEPS), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("warmup", [pytest.param(w, id=n) for n, w in warmup_examples()])
def test_every_warmup_is_that_of_numpy(warmup):
    config = lr_config("cosine")
    values = checked_values(config, warmup, STEPS)
    np.testing.assert_allclose(values, curve(config, warmup, STEPS), rtol=1e-12, atol=1e-16)


def test_what_has_no_value_is_as_in_numpy():
    assert SCALARS.power(10.0, 400.0) == math.inf
    assert SCALARS.power(0.0, -1.0) == math.inf
    assert math.isnan(SCALARS.power(-1.0, 0.5))
    assert math.isnan(SCALARS.sqrt(-1.0))
