"""Writes files that are never half there."""

import contextlib
import os


def write_whole(path: str, text: str) -> None:
    """Writes a file as a whole: who reads meanwhile, reads what it held before.

    Raises:
        OSError: If it cannot be written; the file is as it was then.
        ValueError: If the text is no Unicode; likewise.
    """
    part = f"{path}.part"
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, path)
    except (OSError, ValueError):
        with contextlib.suppress(OSError):
            os.remove(part)
        raise
