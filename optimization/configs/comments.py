"""The comments of YAML files: read by the paths of their keys, and written above and beside them.

PyYAML leaves comments out. Where keys are is known to `yaml_file`, where a line's last token ends
to PyYAML's scanner; what a comment belongs to follows from both.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from optimization.configs import yaml_file
from optimization.configs.yaml_file import SourcedDict


class Comment(NamedTuple):
    """What a file says of a key: the lines `above` it, and the one `beside` it, with their `#`."""

    above: tuple[str, ...] = ()
    beside: str = ""


END = ""
"""The path of what is behind the last key."""


def read_comments(text: str) -> dict[str, Comment]:
    """Returns the comments of a YAML text by the paths of keys; those behind all keys as `END`.

    Lines above belong to the next key, at whatever depth. Empty lines stay between comments.
    """
    lines = text.splitlines()
    above: list[str] = []
    found: dict[str, Comment] = {}
    paths = {line: path for path, line in reversed(key_lines(text))}  # the first of several
    beside = _besides(text, lines) if paths else {}
    for number, line in enumerate(lines, start=1):
        if number in paths:
            found[paths[number]] = Comment(tuple(_trimmed(above)), beside.get(number, ""))
            above = []
        elif line.lstrip().startswith("#"):
            above.append(line.strip())
        elif not line.strip() and above:
            above.append("")
    found[END] = Comment(tuple(_trimmed(above)))
    return {path: comment for path, comment in found.items() if any(comment)}


def write_comments(text: str, comments: Mapping[str, Comment]) -> str:
    """Returns a YAML text with comments at their keys; those of other keys are left out."""
    lines, is_open = text.splitlines(), _open_lines(text)
    for path, number in reversed(key_lines(text)):
        comment = comments.get(path, Comment())
        if comment.beside and number in is_open:
            comment = Comment((*comment.above, comment.beside))
        line = lines[number - 1]
        indent = " " * (len(line) - len(line.lstrip()))
        # In a list a key may stand behind the dash, of which comments are written above.
        above = [f"{indent}{each}".rstrip() for each in comment.above]
        lines[number - 1 : number] = [*above, f"{line}  {comment.beside}".rstrip()]
    end = comments.get(END, Comment()).above
    return "\n".join([*lines, *end]) + "\n"


def key_lines(text: str) -> list[tuple[str, int]]:
    """Returns the dotted path of each key of a YAML text and its line, in the order of the text."""
    value, _ = yaml_file.read(text)
    return sorted(_lines(value, ""), key=lambda item: item[1])


def _lines(value: Any, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _lines(item, f"{path}[{index}]")
    if isinstance(value, SourcedDict):
        for key, item in value.items():
            place = f"{path}.{key}" if path else str(key)
            yield place, value.origins[key].line or 0
            yield from _lines(item, place)


def _besides(text: str, lines: list[str]) -> dict[int, str]:
    """Returns the comment behind what is on a line, by the line's number."""
    ends: dict[int, int] = {}
    for token in yaml.scan(text, yaml_file.BaseLoader):
        mark = token.end_mark
        ends[mark.line] = max(ends.get(mark.line, 0), mark.column)
    found = {}
    for line, column in ends.items():
        rest = lines[line][column:].strip() if line < len(lines) else ""
        if rest.startswith("#") and lines[line][:column].strip():
            found[line + 1] = rest
    return found


def _open_lines(text: str) -> set[int]:
    """Returns the lines at whose end a value goes on: what is written there is a part of it."""
    scalars = [t for t in yaml.scan(text, yaml_file.BaseLoader) if isinstance(t, yaml.ScalarToken)]
    spans = ((token.start_mark.line, token.end_mark.line) for token in scalars)
    return {line + 1 for first, last in spans for line in range(first, last)}


def _trimmed(lines: list[str]) -> list[str]:
    """Returns lines without empty ones at the end."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines
