"""What is wrong with a configuration, and where the wrong value came from."""

import difflib
import glob
import inspect
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Tells where a value was written: in a file and line, a command line flag, or Python code.

    >>> str(Origin("base.yaml", 12))
    'base.yaml:12'
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


MAX_TEXT = 4000
"""The most characters that a message has, whatever the config holds."""


def shortened(text: str, most: int = MAX_TEXT) -> str:
    """Returns text without its middle, where it has more characters than `most`.

    >>> shortened("a.b.c.d.e.f.g.h", 9)
    'a.b....h'
    """
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail - 3]}...{text[-tail:] if tail else ''}"


PYTHON = Origin("python")
DEFAULT = Origin("default")


def known(origin: Origin) -> Origin | None:
    """Returns the origin to name in a message; None for Python code, which the traceback shows."""
    return None if origin in (PYTHON, DEFAULT) else origin


class Problem(NamedTuple):
    """Describes one mistake in a configuration.

    >>> print(Problem("value", "sgd.momentum", "must be < 1, got 2", Origin("a.yaml", 3)))
    a.yaml:3: sgd.momentum: must be < 1, got 2

    Attributes:
        code: A stable name for this kind of mistake, such as `unknown-key`; `optimization.lint` has
            all of them, with their severities and summaries.
        path: The dotted path of the value, for example `optimizer.sgd.momentum`.
        message: What was expected, what came, and the nearest right name where there is one.
        origin: Where the value was written, if that is known.
    """

    code: str
    path: str
    message: str
    origin: Origin | None = None

    def __str__(self) -> str:
        parts = [shortened(str(part), _PART) for part in (self.origin, self.path) if part]
        return shortened(": ".join([*parts, self.message]))


_PART = 400  # characters of a path, or of where it was written


class ConfigError(ValueError):
    """Raised with all the mistakes of a configuration at once, one a line.

    Of very many, the text has the first ones and how many more there are; `problems` has all.

    >>> error = ConfigError([Problem("missing", "type", "a type is required, none was given")])
    >>> print(error)
    type: a type is required, none was given
    >>> [problem.code for problem in error.problems]
    ['missing']

    Attributes:
        problems: The mistakes, in the order in which they were met.
    """

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__(_told(self.problems))

    def __reduce__(self):
        return type(self), (self.problems,)


def _told(problems: Sequence[Problem]) -> str:
    lines: list[str] = []
    free = MAX_TEXT - 40 * (len(problems) > 1)  # which leaves room for the last line
    for problem in problems:
        line = str(problem) if lines else shortened(str(problem), free)
        free -= len(line) + 1
        if lines and free < 0:
            return "\n".join([*lines, f"... and {len(problems) - len(lines):,} more mistakes"])
        lines.append(line)
    return "\n".join(lines)


class ConfigWarning(UserWarning):
    """Warns of a configuration that works, but is probably not what its author meant.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn(Problem("warmup-too-long", "warmup.linear.warmup_steps", "is 100"))
    >>> caught[0].category is ConfigWarning
    True
    """


def warn(problem: Problem) -> None:
    warnings.warn(str(problem), ConfigWarning, stacklevel=3)


_ALIKE = 0.8  # from here on a name is a misspelling of the other


def did_you_mean(name: Any, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Returns "; did you mean 'x'?" for the nearest of `names`, or "" if none is near.

    >>> did_you_mean("momentmu", ["momentum", "nesterov"])
    "; did you mean 'momentum'?"

    Two names are as near as difflib's ratio says, in whatever case, and `CosineDecay` is
    `cosine_decay`; `cutoff` is the least that counts. Of several that are no more than alike, one
    that the name begins with is meant: `cosine`, not `cosine_restarts`.
    """
    if not isinstance(name, str) or len(name) > _PART:
        return ""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()
    known = {known.lower(): known for known in names}
    near = difflib.get_close_matches(words, known, n=3, cutoff=cutoff)
    if difflib.get_close_matches(words, near, n=1, cutoff=_ALIKE) == []:
        near.sort(key=lambda other: not words.startswith(f"{other}_"))
    return f"; did you mean {known[near[0]]!r}?" if near else ""


def number_to_write(text: str, is_whole: bool = False) -> str:
    """Returns "; write 0.01" for the number 0,01, and "; write 1000000" for 1,000,000.

    1,000 may be one or a thousand: that is told only where whole numbers are expected.
    """
    text = text.strip()
    if _GROUPS.fullmatch(text):
        digits = re.sub("[.,' ]", "", text)
        return f"; write {digits}" if is_whole or len(digits.lstrip("+-")) > 6 else ""
    point = text.replace(",", ".")
    return f"; write {point}" if _DECIMAL_COMMA.fullmatch(text) and not is_whole else ""


def after_comma(key: Any) -> str:
    """Returns what to write where a key is the digits after a comma, as of `{rate: 0,5}`."""
    is_number = type(key) is int or (isinstance(key, str) and key.isdigit())
    return "; between { and } a comma ends a value: write 0.5, not 0,5" if is_number else ""


_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
_GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}([.,' ])\d{3}(\1\d{3})*")  # of three digits


def cannot_be_read(path: str, error: OSError) -> str:
    """Returns what to tell of a file that cannot be read, and which one may be meant.

    >>> cannot_be_read("no/such.yaml", FileNotFoundError(2, "No such file or directory"))
    'cannot be read: No such file or directory'
    """
    message = f"cannot be read: {error.strerror or error}"
    if isinstance(error, IsADirectoryError):
        return f"{message}; write '{os.path.join(path, '**', '*.yaml')}' for the files in it"
    if not isinstance(error, FileNotFoundError):
        return message
    if glob.has_magic(path):
        return "cannot be read: no file has a name of this pattern"
    folder, name = os.path.split(path)
    try:
        return message + did_you_mean(name, os.listdir(folder or "."), _ALIKE)
    except OSError:
        return message


def nearest_or_all(name: Any, names: Iterable[str]) -> str:
    """Returns the nearest of `names` as `did_you_mean` does, or all of them where none is near.

    >>> nearest_or_all("velocity", ["momentum"])
    '; there are momentum'
    """
    names = list(names)
    return did_you_mean(name, names) or f"; there are {', '.join(names) or 'none'}"


def wrong_signature(name: str, function: Any, arguments: str) -> str:
    """Says that a function of a user's can't be called with these arguments; "" where it can.

    >>> wrong_signature("`value`", lambda step: step, "self, step")
    '`value` must take (self, step), it takes (step)'
    """
    if not callable(function):
        return f"{name} must take ({arguments}), it takes {describe(function)}"
    names, code = arguments.split(", "), getattr(function, "__code__", None)
    if code and names == [*code.co_varnames[: code.co_argcount]] and not code.co_kwonlyargcount:
        return ""  # as every function of this package is: a signature takes ten times as long
    signature = inspect.signature(function)
    try:
        signature.bind(*names)
    except TypeError:
        return f"{name} must take ({arguments}), it takes {signature}"
    return ""


def describe(value: Any) -> str:
    """Returns `value` as a user would have written it, with its kind where that may surprise."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, int | float):
        return repr(value)
    try:
        text = repr(value)
    except ValueError:  # an integer in it is too long to be written
        text = "what holds an integer of too many digits"
    if len(text) > 60:
        text = text[:57] + "..."
    kinds = {str: "text", list: "a list", tuple: "a list", dict: "a mapping"}
    kind = next((k for t, k in kinds.items() if isinstance(value, t)), type(value).__name__)
    return f"{text} ({kind})"
