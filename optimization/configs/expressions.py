"""Regular expressions of users, which may be wrong, and may never come to an end."""

import re
from functools import cache
from typing import Any

from optimization.configs.errors import describe, shortened

_SECONDS = 1.0
_REPEATED = re.compile(r"[*+{]")
_REPEATED_GROUP = re.compile(r"\)[*+{]")


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Returns a regular expression, compiled.

    Raises:
        ValueError: If it is none, or one that is too large.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        message = str(error)
    except RecursionError:
        message = "it is nested too deeply"
    except (OverflowError, MemoryError):
        message = "a number of repetitions is too large"
    shown = shortened(repr(pattern), 100)
    raise ValueError(f"{shown} is not a regular expression: {message}")


def search(pattern: str, text: str) -> re.Match[str] | None:
    """Searches a regular expression in text, as `re.search` does.

    With one repetition of a character a search ends soon. With more, or with one of a group, it may
    take longer than anybody waits, `(a|aa)+$` in fifty letters, and `re` can't be stopped: these
    are searched with a limit.

    Raises:
        ValueError: If the search takes longer than a second.
    """
    usual = compiled(pattern)
    if len(_REPEATED.findall(pattern)) < 2 and not _REPEATED_GROUP.search(pattern):
        return usual.search(text)
    try:
        return _limited(pattern).search(text, timeout=_SECONDS)
    except TimeoutError:
        place = shortened(repr(text), 200)
        raise ValueError(
            f"the regular expression {describe(pattern)} takes longer than {_SECONDS:g} s in "
            f"{place}; write it without repetitions inside of repetitions"
        ) from None


@cache
def _limited(pattern: str) -> Any:
    import regex

    return regex.compile(pattern)
