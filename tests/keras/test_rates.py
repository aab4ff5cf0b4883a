import keras
import pytest

from optimization.keras.rates import ScaledRate, is_schedule
from tests.keras.common import TableSchedule


def test_a_multiple_of_the_rate_as_it_is():
    variable = keras.Variable(0.5, name="rate")
    rate = ScaledRate(lambda: variable, 0.1, constant=True)
    assert float(rate()) == pytest.approx(0.05)
    variable.assign(2.0)
    assert float(rate()) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.1, False),
        (ScaledRate(lambda: 0.1, 1.0, constant=True), False),
        (ScaledRate(lambda: 0.1, 1.0, constant=False), True),
        (TableSchedule([0.1]), True),
    ],
)
def test_what_depends_on_the_step(rate, expected):
    assert is_schedule(rate) is expected
