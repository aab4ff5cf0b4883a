"""The comments `# optfactory: ignore[CODE]`, which silence findings."""

import bisect
import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml

from optimization.configs.yaml_file import BaseLoader

_MARK = re.compile(r"#\s*optfactory:\s*(?P<rest>.*)")
_IGNORE = re.compile(r"ignore\[(?P<codes>[^\]]*)\]")


class Ignore(NamedTuple):
    """One code of a comment.

    Attributes:
        code: What is silenced; "" for a comment that names nothing.
        line: The line of the comment.
        of_file: Whether the comment is in front of all content, for the whole file.
    """

    code: str
    line: int
    of_file: bool


def ignores_in(text: str) -> list[Ignore]:
    """Returns what the comments of a YAML file ignore.

    >>> ignores_in("a: 1  # optfactory: ignore[low-peak, advice]  as in the paper")
    [Ignore(code='low-peak', line=1, of_file=False), Ignore(code='advice', line=1, of_file=False)]
    """
    if "optfactory:" not in text:
        return []
    return list(_ignores(text))


def _ignores(text: str) -> Iterator[Ignore]:
    # Where scalars start and end, in the order of the text.
    tokens = [t for t in yaml.scan(text, BaseLoader) if isinstance(t, yaml.ScalarToken)]
    starts = [(t.start_mark.line, t.start_mark.column) for t in tokens]
    ends = [(t.end_mark.line, t.end_mark.column) for t in tokens]
    lines = text.split("\n")
    of_file = True
    for number, line in enumerate(lines):
        is_front = line.strip() == "" or line.lstrip().startswith(("#", "%", "---"))
        of_file = of_file and is_front
        found = _MARK.search(line)
        place = (number, found.start()) if found else (0, 0)
        before = bisect.bisect_right(starts, place)
        if found is None or (before and place < ends[before - 1]):
            continue
        ignore = _IGNORE.match(found["rest"])
        codes = [code.strip() for code in ignore["codes"].split(",")] if ignore else [""]
        yield from (Ignore(code, number + 1, of_file) for code in codes)
