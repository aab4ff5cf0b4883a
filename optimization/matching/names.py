"""Names and shapes of the parameters of a model, read from lists and from safetensors files."""

import os
import re
from collections.abc import Iterable, Mapping

from optimization.configs.text_files import MAX_JSON_BYTES, check_regular, parse_json

Shapes = dict[str, tuple[int, ...] | None]
"""The shape of each parameter by path, in the order of the model; None where it is not known."""

_LINE = re.compile(r"(?P<path>\S+)(\s+[\[(](?P<shape>[\d\s,x]*)[\])])?")
_INDEX = ".safetensors.index.json"


def read_names(lines: Iterable[str], source: str = "names") -> Shapes:
    """Reads a list of paths, one a line, each with its shape in brackets if it is known.

    Empty lines, and those that begin with "#", count for nothing.

    >>> read_names(["# of a model", "head/kernel [8, 3]", "head/bias (3,)", "scale []", "other"])
    {'head/kernel': (8, 3), 'head/bias': (3,), 'scale': (), 'other': None}

    Args:
        lines: The lines.
        source: What to call them in messages.

    Raises:
        ValueError: For a line that is none of this, and for a path that is there twice.
    """
    found: Shapes = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{source}:{number}: expected a path, or a path and its shape such as "
                f"`head/kernel [8, 3]`, got {text!r}"
            )
        if match["path"] in found:
            raise ValueError(f"{source}:{number}: the path {match['path']!r} is there twice")
        sizes = None if match["shape"] is None else re.findall(r"\d+", match["shape"])
        found[match["path"]] = None if sizes is None else tuple(map(int, sizes))
    if not found:
        raise ValueError(f"{source}: holds no names")
    return found


def read_safetensors(path: str) -> Shapes:
    """Reads the names and shapes of a `.safetensors` file, or of all that an index file names.

    Only the header is read: its length, 8 bytes, and then that much JSON.

    Raises:
        ValueError: If it is no such file.
        OSError: If it cannot be read.
    """
    if path.endswith(_INDEX):
        return _of_index(path)
    check_regular(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if 0 < length <= MAX_JSON_BYTES else b""
    try:
        header = parse_json(text)
        return {name: _shape(header[name]["shape"]) for name in header if name != "__metadata__"}
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path}: is no safetensors file: it has no header of one") from None


def _shape(sizes: list[int]) -> tuple[int, ...]:
    if not isinstance(sizes, list) or any(type(n) is not int or n < 0 for n in sizes):
        raise ValueError(f"a shape is a list of sizes, got {sizes!r}")
    return tuple(sizes)


def _of_index(path: str) -> Shapes:
    check_regular(path)
    with open(path, "rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    try:
        names: Mapping[str, str] = parse_json(content)["weight_map"]
        files = dict.fromkeys(names.values())
        strange = next((f for f in files if f != os.path.basename(f) or f in ("", ".", "..")), None)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: is no index of safetensors files: no `weight_map`") from None
    # An index is data: it may not say which files of this machine are opened.
    if strange is not None:
        raise ValueError(f"{path}: names {strange!r}, which is no file beside it")
    found: Shapes = {}
    for each in files:
        found |= read_safetensors(os.path.join(os.path.dirname(path), each))
    return {name: found[name] for name in names if name in found}
