"""Texts of files: written from values, or from files that are there, and then damaged."""

import functools
import json
import pathlib
from typing import Any

from optimization.configs import yaml_file
from tools.fuzz.choices import Choices
from tools.fuzz.values import TEXTS, Maker, hostile, spoiled

_ENDINGS = (".yaml", ".yml", ".json", ".toml")
_PARTS = [
    *(
        "a",
        "a: ",
        "b: 1\n",
        "- ",
        "\n",
        "\n  ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        ", ",
        "#",
        " #",
        "&a ",
        "*a",
    ),
    *(
        "<<: ",
        "|\n",
        ">-\n",
        "? ",
        "---\n",
        "...\n",
        "!!",
        "!t ",
        "'",
        '"',
        "\\",
        "\t",
        "=",
        ".",
        "%",
    ),
    *("@", "`", "\r", "\r\n", "\x85", "\u2028", "\ufeff", "\0", "0", "1e3", "[0]", "~", "''", '""'),
    *("!!int ", "!!float ", "!!bool ", "!!null ", "!!str ", "!!set ", "!!omap ", "!!timestamp "),
]
SEEDS: list[str] = [str(pathlib.Path(__file__).parents[2] / "configs")]
"""Folders of files that are damaged to make inputs; a recorded run adds others."""


def soup(choices: Choices) -> str:
    """Returns signs that mean something to a parser, in any order."""
    return "".join(choices.listed(lambda c: c.one_of(TEXTS if c.rarely(4) else _PARTS), 12))


@functools.cache
def seeds(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the texts of the files in folders, sorted by their paths."""
    paths = (path for folder in folders for path in sorted(pathlib.Path(folder).rglob("*")))
    files = (path for path in paths if path.suffix in _ENDINGS and path.stat().st_size < 20_000)
    return tuple(path.read_text(encoding="utf-8", errors="replace") for path in files)


def damaged(choices: Choices, text: str) -> str:
    """Returns a text as it is, or with up to three pieces left out, written twice or put in."""
    for _ in range(choices.one_of([0, 0, 1, 1, 2, 3])):
        start = choices.up_to(len(text))
        end = min(len(text), start + choices.one_of([0, 0, 1, 3, 10, 100]))
        put = choices.one_of([*_PARTS, *TEXTS, text[start:end] * 2])
        text = text[:start] + put + text[end:]
    return text


def written(choices: Choices, value: Any) -> str:
    """Returns the YAML, or JSON, text of a value."""
    return json.dumps(value, default=str) if choices.rarely(3) else yaml_file.dump(value)


def file(choices: Choices, tree: Maker) -> str:
    """Returns the text of a file of settings, right or wrong."""
    match choices.up_to(7):
        case 0 | 1 | 2:
            return written(choices, spoiled(choices, tree(choices)))
        case 3:
            return damaged(choices, written(choices, tree(choices)))
        case 4:
            return damaged(choices, choices.one_of(seeds(tuple(SEEDS))))
        case 5:
            keys = choices.some("abc", 3)
            return damaged(choices, written(choices, {key: hostile(choices) for key in keys}))
        case 6:
            return soup(choices)
    return choices.text()


def raw(choices: Choices, text: str) -> bytes:
    """Returns the bytes of a text, or with up to five of them replaced."""
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(choices.one_of([0, 0, 0, 1, 5]) if content else 0):
        content[choices.up_to(len(content) - 1)] = choices.up_to(255)
    return bytes(content)
