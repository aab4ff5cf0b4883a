"""Stochastic rounding to bfloat16 beside the same in integers of Python."""

import numpy as np
import pytest

from optimization.rules.rounding import bits_of, key_of, rounded, salt_of

WORD = 2**32


def python_bits(salt, step, place):
    """Returns the 16 bits, in integers that are cut to 32 bits one by one."""

    def mixed(x):
        x = ((x ^ (x >> 16)) * 0x7FEB352D) % WORD
        x = ((x ^ (x >> 15)) * 0x846CA68B) % WORD
        return x ^ (x >> 16)

    key = mixed((step * 0x2C1B3C6D) % WORD ^ salt % WORD)
    return mixed((place * 0x297A2D39) % WORD ^ key) % 2**16


def bits(salt, step, count):
    with np.errstate(over="ignore"):
        key = key_of(salt, np.array([step], np.int32), np.right_shift)
        return bits_of(np.arange(count, dtype=np.int32), key, np.right_shift)


@pytest.mark.parametrize("step", [1, 2, 1000, 2**31 - 1])
def test_bits_are_those_of_pythons_integers(step):
    salt = salt_of(3, "layer/kernel", "momentum")
    assert -(2**31) <= salt < 2**31
    assert bits(salt, step, 50).tolist() == [python_bits(salt, step, i) for i in range(50)]


def test_bits_are_of_the_seed_the_variable_the_slot_and_the_step():
    salts = [
        salt_of(seed, variable, slot) for seed in (0, 1) for variable in ("a", "b") for slot in "mv"
    ]
    drawn = [bits(salt, step, 4000) for salt in salts for step in (1, 2)]
    assert len({each.tobytes() for each in drawn}) == len(drawn)
    together = np.stack(drawn) / 2**16
    assert np.abs(together.mean(1) - 0.5).max() < 0.02  # 4 standard deviations
    assert np.abs(np.corrcoef(together) - np.eye(len(drawn))).max() < 0.08  # 5 of them


def test_rounding_goes_to_a_neighbour_and_is_right_in_the_mean():
    values = np.float32([1.001, -1.001, 3e-20, 123456.7])
    found = np.stack(
        [
            rounded(values.view(np.int32), draw).view(np.float32)
            for draw in bits(salt_of(0, 0, "m"), 1, 40000).reshape(-1, 4)
        ]
    )
    low = (values.view(np.int32) & -0x10000).view(np.float32)
    assert {*(found.view(np.int32) & 0xFFFF).ravel()} == {0}
    distance = np.abs((found - low) / low)
    assert distance.max() < 2**-7 + 1e-6
    np.testing.assert_allclose(found.mean(0, dtype="float64"), values, rtol=2e-4)


def test_what_bfloat16_has_stays():
    values = np.float32([0.0, 1.5, -2.0, 0.0078125])
    for draw in bits(0, 5, 100):
        assert (rounded(values.view(np.int32), draw).view(np.float32) == values).all()
