"""Stochastic rounding to bfloat16 in NumPy, of the values that an update has made."""

import numpy as np

from optimization.rules.rounding import bits_of, key_of, rounded, salt_of


def rounded_by_hand(value, seed, variable, slot, step):
    """Returns a float32 array of which each entry is a number of bfloat16."""
    value = np.ascontiguousarray(value, "float32")
    with np.errstate(over="ignore"):
        key = key_of(salt_of(seed, variable, slot), np.array([step], np.int32), np.right_shift)
        places = np.arange(value.size, dtype=np.int32).reshape(value.shape)
        word = rounded(value.view(np.int32), bits_of(places, key, np.right_shift))
    return word.view(np.float32)
