import numpy as np
import pytest

from optimization.rules.arrays import Arrays

XP = Arrays(np)


@pytest.mark.parametrize(
    ("weight", "update", "expected"),
    [([3.0, 4.0], [0.0, 10.0], 0.05), ([0.0, 0.0], [1.0, 1.0], 1.0), ([1.0, 1.0], [0.0] * 2, 1.0)],
)
def test_a_ratio_is_1_where_a_norm_is_0(weight, update, expected):
    norms = [XP.norm(np.float32(vector)) for vector in (weight, update)]
    assert float(XP.ratio(*norms, coefficient=0.1)) == pytest.approx(expected)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.999999])
def test_one_minus_power_is_exact(beta):
    for t in (1, 2, 50, 10_000):
        actual = float(XP.one_minus_power(beta, np.float32(t)))
        # A few roundings of float32; the difference 1 - 0.999999 would be wrong by 5 %.
        assert actual == pytest.approx(1 - beta**t, rel=5e-7)


def test_one_minus_power_of_a_number_on_a_schedule():
    assert XP.one_minus_power(np.float32(0.5), np.float32(2)) == 0.75


def test_a_wide_norm_is_finite_where_the_squares_are_not():
    x = np.float32([3e30, 4e30])
    with np.errstate(over="ignore"):
        assert np.isinf(XP.norm(x))
    assert XP.norm(x, wide=True) == pytest.approx(5e30)
    assert XP.norm(np.float32([3e-30, 4e-30]), wide=True) == pytest.approx(5e-30)
    assert XP.norm(np.float32([0, 0]), wide=True) == 0


def test_steps_since_are_exact_late_in_training():
    late = 2**31 - 10
    since = XP.steps_since(np.int64(late + 3), late, np.float32([0]))
    assert (since, since.dtype) == (3, "float32")
