import keras
import pytest

from optimization.keras.rule_part import rate_now
from tests.keras.common import TableSchedule


def test_a_multiple_of_the_rate_as_it_is():
    optimizer, variable = keras.optimizers.SGD(0.25), keras.Variable(0.5, name="rate")
    assert float(rate_now(optimizer, variable, 0.1)) == pytest.approx(0.05)
    variable.assign(2.0)
    assert float(rate_now(optimizer, variable, 0.1)) == pytest.approx(0.2)
    assert float(rate_now(optimizer, None, 1.0)) == 0.25
    optimizer.iterations.assign(1)
    assert float(rate_now(optimizer, TableSchedule([0.1, 0.3]), 2.0)) == pytest.approx(0.6)
