"""Stochastic rounding to bfloat16: the bits, a pure function, in the integers of any framework.

A float32 number is bfloat16 where its lower 16 bits are 0. Before they are cut off a random number
of 16 bits is added to them: it carries into the upper ones with the probability of rounding up, so
that the mean over the random numbers is the number itself.

The functions compute with int32 that wraps around, by operators that NumPy, JAX, TensorFlow and
PyTorch have in common, and `shift`, which is `right_shift` of each.
"""

import zlib
from collections.abc import Callable
from typing import Any

Shift = Callable[[Any, int], Any]

# lowbias32 of Wellons 2018, https://nullprogram.com/blog/2018/07/31/; the constants as int32.
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32
_OF_STEP, _OF_PLACE = 0x2C1B3C6D, 0x297A2D39  # odd


def salt_of(seed: int, variable: int | str, name: str) -> int:
    """Returns what tells the bits of a slot of a variable from those of others, an int32."""
    found = zlib.crc32(f"{seed}/{variable}/{name}".encode())
    return found - 2**32 if found >= 2**31 else found


def key_of(salt: int, step: Any, shift: Shift) -> Any:
    """Returns the key of an update, of an int32 array of its number."""
    return mixed(step * _OF_STEP ^ salt, shift)


def bits_of(places: Any, key: Any, shift: Shift) -> Any:
    """Returns 16 random bits for each of some places, int32 arrays, in a variable."""
    return mixed(places * _OF_PLACE ^ key, shift) & 0xFFFF


def mixed(x: Any, shift: Shift) -> Any:
    """Returns an int32 of which every bit depends on every bit of another."""
    x = (x ^ (shift(x, 16) & 0xFFFF)) * _FIRST
    x = (x ^ (shift(x, 15) & 0x1FFFF)) * _SECOND
    return x ^ (shift(x, 16) & 0xFFFF)


def rounded(word: Any, bits: Any) -> Any:
    """Returns the bits of a finite float32, rounded to those of a bfloat16."""
    return (word + bits) & -0x10000
