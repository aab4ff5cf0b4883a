import math

import numpy as np
import pytest

from optimization.schedules.formulas import half_cosine, lookup, whole_and_rest


def test_half_cosine():
    remaining = np.array([1.0, 0.75, 0.5, 0.25, 0.0])
    expected = [0.5 * (1 + math.cos(math.pi * (1 - r))) for r in remaining]
    np.testing.assert_allclose(half_cosine(remaining, np), expected, rtol=1e-15, atol=1e-16)
    tiny = half_cosine(np.float32(1e-6), np)
    # Three roundings in float32; 1 + cos would be 0.
    np.testing.assert_allclose(tiny, (math.pi / 2 * 1e-6) ** 2, rtol=4e-7)


class Reciprocal:
    """A float32 number whose division multiplies with the reciprocal, as XLA's may."""

    def __init__(self, value):
        self.value = np.float32(value)

    def __truediv__(self, other):
        return np.float32(self.value * (np.float32(1) / np.float32(other)))

    def __sub__(self, other):
        return np.float32(self.value - np.float32(other))


@pytest.mark.parametrize("make", [np.float32, Reciprocal])
def test_whole_and_rest_are_exact_in_float32(make):
    random = np.random.RandomState(0)
    wrong = 0
    for period in [3, 7, 41, 49, 1000, *random.randint(2, 10**6, 200)]:
        multiple = int(random.randint(1, 2**24 // period))
        for step in (multiple * period - 1, multiple * period, multiple * period + 1):
            whole, rest = whole_and_rest(make(step), float(period), np)
            assert (int(whole), int(rest)) == divmod(step, int(period))
            wrong += int(np.floor(make(step) / period)) != step // period
    # The reciprocal does round to the wrong side, or else this test would show nothing.
    assert (wrong > 0) == (make is Reciprocal)


@pytest.mark.parametrize(
    ("side", "expected"), [("left", [1, 1, 2, 2, 3]), ("right", [1, 2, 2, 3, 3])]
)
def test_lookup(side, expected):
    step = np.array([0.0, 10.0, 11.0, 20.0, 21.0])
    (values,) = lookup(step, [10.0, 20.0], [[1.0, 2.0, 3.0]], side, np)
    assert values.tolist() == expected


def test_lookup_without_boundaries():
    first, second = lookup(np.zeros((2, 2)), [], [[1.0], [2.0]], "left", np)
    np.testing.assert_array_equal(first, np.ones((2, 2)))
    np.testing.assert_array_equal(second, np.full((2, 2), 2.0))
