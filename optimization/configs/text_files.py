"""Reads text from files that nobody trusts: none that has no end, and none that is very large.

The limits are counted before anything is parsed: a small file may stand for much in memory.
"""

import errno
import json
import os
import stat
from typing import Any

MAX_BYTES = 2**20
"""What a file of settings holds at most, unless `OPTFACTORY_MAX_BYTES` in the environment is
another number."""
MAX_JSON_BYTES = 2**24
"""What JSON that a program has written about a model holds at most."""
MAX_JSON_VALUES = 1_000_000
"""How many values it has at most: a tensor takes about ten."""


class NotReadError(ValueError):
    """Raised for a file of a kind, or of a size, that is not read."""


def most_bytes() -> int:
    """Returns what a file of settings holds at most."""
    text = os.environ.get("OPTFACTORY_MAX_BYTES", "")
    return int(text) if text.isdecimal() else MAX_BYTES


def too_large() -> str:
    """Returns what to say of a file that holds more."""
    return (
        f"is larger than {most_bytes():,} bytes, the most that is read; the environment variable "
        "OPTFACTORY_MAX_BYTES sets another limit"
    )


def check_regular(path: str | os.PathLike) -> None:
    """Refuses what is no regular file, whose end may never come.

    Raises:
        OSError: If there is no such file, or it is a directory.
        NotReadError: For a pipe or a device, or a name that no file can have.
    """
    try:
        kind = os.stat(path).st_mode
    except ValueError:  # it holds a NUL, or half a character
        raise NotReadError("is no name that a file can have") from None
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(kind):
        raise NotReadError("is no regular file, but a pipe or a device; write it to a file first")


def read_text(path: str | os.PathLike) -> str:
    """Returns the text of a file of settings.

    Raises:
        OSError: If it cannot be read.
        NotReadError: If it is a pipe, a device, or too large.
        UnicodeDecodeError: If it is not UTF-8.
    """
    check_regular(path)
    with open(path, "rb") as file:
        content = file.read(most_bytes() + 1)
    if len(content) > most_bytes():
        raise NotReadError(too_large())
    return content.decode("utf-8-sig")


def parse_json(content: bytes, **options: Any) -> Any:
    """Returns what JSON holds; `options` are those of `json.loads`.

    >>> parse_json(b'{"a": [1, 2]}')
    {'a': [1, 2]}

    Raises:
        ValueError: If it is no JSON in UTF-8, or too large, or nested too deeply.
    """
    if len(content) > MAX_JSON_BYTES:
        raise NotReadError(f"is larger than {MAX_JSON_BYTES:,} bytes, the most that is read")
    if sum(map(content.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise NotReadError(f"has more than {MAX_JSON_VALUES:,} values, the most that is read")
    try:
        return json.loads(content.decode("utf-8"), **options)
    except RecursionError:
        raise NotReadError("is nested too deeply") from None
