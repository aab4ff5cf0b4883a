"""`Choices`: bytes read as decisions, from which inputs are made.

Hypothesis draws the bytes and makes those of a fault short; Atheris changes those that reached new
code. Behind the end all are 0, which takes the first of all options: the simplest stand first.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

OptionT = TypeVar("OptionT")


class Choices:
    """Decides by bytes.

    >>> choices = Choices(bytes([7, 1]))
    >>> choices.one_of("abc"), choices.one_of("abc"), choices.one_of("abc")
    ('b', 'b', 'a')
    """

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Returns the next bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken.ljust(count, b"\0")

    def up_to(self, most: int) -> int:
        """Returns a number from 0 to `most`, both included."""
        count = max(1, (most.bit_length() + 7) // 8)
        return int.from_bytes(self.take(count), "big") % (most + 1)

    def one_of(self, options: Sequence[OptionT]) -> OptionT:
        """Returns one of several options."""
        return options[self.up_to(len(options) - 1)]

    def some(self, options: Sequence[OptionT], most: int) -> list[OptionT]:
        """Returns up to `most` of several options, each once."""
        if not options:
            return []
        return list(dict.fromkeys(self.one_of(options) for _ in range(self.up_to(most))))

    def rarely(self, share: int = 8) -> bool:
        """Whether something happens, as it does once in `share` times."""
        return self.up_to(share - 1) == share - 1

    def listed(self, make: Callable[["Choices"], Any], most: int) -> list[Any]:
        """Returns up to `most` values that `make` makes."""
        return [make(self) for _ in range(self.up_to(most))]

    def integer(self) -> int:
        """Returns an integer of up to ten bytes."""
        return int.from_bytes(self.take(self.up_to(10)), "big", signed=True)

    def real(self) -> float:
        """Returns any number of float64, infinite ones and NaN among them."""
        return struct.unpack(">d", self.take(8))[0]

    def text(self) -> str:
        """Returns up to 20 characters, of ASCII and others."""
        characters = (
            self.up_to(0x7F) if self.up_to(3) else self.up_to(0x10FFFF) for _ in range(99)
        )
        fine = (chr(c) for c in characters if not 0xD800 <= c < 0xE000)
        return "".join(c for c, _ in zip(fine, range(self.up_to(20)), strict=False))
