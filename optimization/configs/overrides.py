"""Settings on the command line: `a.b=1,c[0].d=[1,2]`, YAML or JSON text, or the path of a file.

What a text means depends on the text alone, never on the files that are there. What is none of the
three is an error that shows what to write, whatever tool the writer has in mind.
"""

import itertools
import re
from typing import Any

from optimization.configs import yaml_file
from optimization.configs.errors import ConfigError, Origin, Problem, describe
from optimization.configs.yaml_file import Elements, Parts, SourcedDict

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*|\.\d{1,6}|\[\d{1,6}\])*")
_SEGMENT = re.compile(r"\w+")
_FILE = re.compile(r"(?!.*:\s)[^={}\[\]\n]+\.(ya?ml|json)", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"[^={:\n]*=")
_NEXT = re.compile(r"(?<![\s;])[\s;]+([A-Za-z_][\w.\[\]]*=(?!=))")
_CLOSING = {"[": "]", "{": "}", "(": ")"}

_MOST = 1000  # settings in one override
_EXPECTED = "expected `path.to.value=value`"


def read_override(text: str, flag: str = "--params_override") -> tuple[SourcedDict, list[Problem]]:
    """Reads one value of a `--params_override` flag, called `flag`, as far as it can be read.

    In `a.b=1,c[0].d=[1,2]` values are YAML: a comma inside of brackets or quotes belongs to the
    value; `c[0]`, or `c.0`, is the first element of a list that is there already. A file ends in
    .yaml, .yml or .json, and its path holds no `=`.

    Returns:
        The settings, nested, each of which remembers where it was written; and the problems.
    """
    text = text.strip()
    if is_file(text):
        return yaml_file.read_file(text)
    if not _ASSIGNMENT.match(text):
        return _read_yaml(text, Origin(f"{flag} {text!r}"))
    result = SourcedDict()
    problems: list[Problem] = []
    assignments = _assignments(text, flag, problems)
    if len(assignments) > _MOST:
        message = f"holds {len(assignments):,} settings; write more than {_MOST:,} into a file"
        return result, [Problem("syntax", "", message, Origin(f"{flag} {text!r}"))]
    for assignment, rest in assignments:
        problems += _assign(result, assignment, rest, flag)
    return result, problems


def is_file(text: str) -> bool:
    """Whether a text is read as the path of a file: it ends in .yaml, .yml or .json."""
    return bool(_FILE.fullmatch(text))


def parse_override(text: str, flag: str = "--params_override") -> SourcedDict:
    """Reads one value of a `--params_override` flag; a ConfigError has every mistake.

    >>> parse_override("optimizer.type=lamb,warmup.linear.warmup_steps=10")
    {'optimizer': {'type': 'lamb'}, 'warmup': {'linear': {'warmup_steps': 10}}}
    """
    result, problems = read_override(text, flag)
    if problems:
        raise ConfigError(problems)
    return result


def _read_yaml(text: str, origin: Origin) -> tuple[SourcedDict, list[Problem]]:
    value, problems = yaml_file.read(text, origin.source)
    if value is None and not problems:
        return SourcedDict(), []
    if isinstance(value, SourcedDict):
        # `a.b: 1` and `{a=1}`, which as YAML are keys of these names.
        for key in [key for key in value if isinstance(key, str) and not key.isidentifier()]:
            hint = _written(*(_parted(key) if "=" in key else (key, value[key])))
            if hint:
                problems.append(Problem("syntax", "", f"{_EXPECTED}; write {hint}", origin))
                del value[key]
        return value, problems
    hint = _written(*_parted(text))
    message = f"{_EXPECTED}, a mapping in YAML or JSON, or the path of a .yaml or .json file"
    message += f"; write {hint}" if hint else f", got {describe(text)}"
    return SourcedDict(), problems or [Problem("syntax", "", message, origin)]


def _parted(text: str) -> tuple[str, str | None]:
    """Parts `a=1`, `a: 1` or `a.b 1`; the value is None where there is none."""
    words = text.split()
    if len(words) == 2 and re.search(r"\S\.\S", words[0]) and not set("=:") & set(words[1]):
        text = "=".join(words)
    path, sign, value = text.partition("=" if "=" in text else ":")
    return path.strip(), value.strip() if sign else None


def _written(path: str, value: Any) -> str:
    """Returns, in back quotes, how `path` is set to `value`, None if nothing says to what.

    A path may be written as `+a.b` (Hydra), `--a.b`, `a/b`, `a-b`, `'a'`, `a:b`; "" for no path.
    """
    deleted = path.startswith("~")
    path = re.sub(r"\[['\"]?([A-Za-z_]\w*)['\"]?\]", r".\1", path.lstrip("+-~"))
    path = path.strip().strip("'\"").replace("-", "_")
    if _FILE.fullmatch(path) and value is None:
        return ""
    path = re.sub(r"[./:]+", ".", path).strip(".")
    if not PATH.fullmatch(path):
        return ""
    if deleted:
        return f"`{path}=null`"
    return f"`{path}=VALUE`" if value is None else f"`{path}={value}`"


def _assignments(text: str, flag: str, problems: list[Problem]) -> list[tuple[str, list[str]]]:
    """Returns each assignment, with the parts behind it that are none.

    A comma that parts nothing is one of the `problems`.
    """
    parts = [part.strip() for part in _split(text)]
    if "" in parts:
        message = f"a comma too many; write `{','.join(part for part in parts if part)}`"
        problems.append(Problem("syntax", "", message, Origin(f"{flag} {text!r}")))
    result: list[tuple[str, list[str]]] = []
    for part in filter(None, parts):
        if "=" in part or not result:
            result.append((part, []))
        else:
            result[-1][1].append(part)
    return result


def _split(text: str) -> list[str]:
    """Splits at the commas that are outside of quotes and brackets."""
    parts, start, closing, quote, previous = [], 0, [], "", ","
    characters = iter(enumerate(text))
    for index, char in characters:
        if quote:
            escapes = char == "\\" if quote == '"' else text.startswith("''", index)
            if escapes:
                next(characters, None)
            elif char == quote:
                quote = ""
        elif char in "'\"" and previous in "=,:[{(":  # elsewhere it is an apostrophe
            quote = char
        elif char in _CLOSING:
            closing.append(_CLOSING[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == "," and not closing:
            parts.append(text[start:index])
            start = index + 1
        previous = char if not char.isspace() else previous
    return [*parts, text[start:]]


def _assign(result: SourcedDict, assignment: str, rest: list[str], flag: str) -> list[Problem]:
    path, equals, text = (part.strip() for part in assignment.partition("="))
    origin = Origin(f"{flag} {','.join([assignment, *rest])!r}")
    if not equals or not PATH.fullmatch(path):
        hint = _written(*_parted(assignment))
        message = _EXPECTED + (f"; write {hint}" if hint else "")
        if _FILE.fullmatch(assignment):
            message = "a file is no part of other settings; give it a flag of its own"
        return [Problem("syntax", "", message, origin)]
    if len(_SEGMENT.findall(path)) > yaml_file.MAX_DEPTH:
        message = f"the path has more than {yaml_file.MAX_DEPTH} parts"
        return [Problem("syntax", path, message, origin)]
    if not text:
        return [Problem("syntax", path, "no value; write `null` or `''`", origin)]
    message = _misread(path, text, rest)
    if message:
        return [Problem("syntax", path, message, origin)]
    value, problems = yaml_file.read(text, str(origin))
    if problems:
        return [problem._replace(path=path, origin=origin) for problem in problems]
    return put(result, path, value, origin)


def _misread(path: str, text: str, rest: list[str]) -> str:
    """Returns what is wrong with a value that is not one as it stands; "" if nothing is."""
    if rest:
        whole = [text, *rest]
        if re.fullmatch(r"[-+]?\d{1,3}", text) and all(
            re.fullmatch(r"\d{3}(\.\d*)?", part) for part in rest
        ):
            return f"a comma separates settings; write `{path}={''.join(whole)}`"
        hints = [f"`{path}=[{', '.join(whole)}]` for a list"]
        if re.fullmatch(r"\d,\d+", ",".join(whole)):
            hints.append(f"`{path}={'.'.join(whole)}` for a fraction")
        hints += [hint for part in rest if (hint := _written(*_parted(part)))]
        return f"a comma separates settings; write {', or '.join(hints)}"
    if text.startswith("="):
        return f"one `=` sets a value; write `{path}={text.lstrip('= ')}`"
    if text == "None":
        return f"write `{path}=null`, or `{path}='None'` for the text"
    if text[0] not in "'\"[{" and (found := _NEXT.search(text)):
        first = text[: found.start()]
        return f"a comma separates settings; write `{path}={first},{text[found.start(1) :]}`"
    return ""


def put(result: SourcedDict, path: str, value: Any, origin: Origin) -> list[Problem]:
    """Sets the value at `path`, of which each part is of `Elements` of a list, or `Parts`."""
    *parents, name = [int(s) if s.isdigit() else s for s in _SEGMENT.findall(path)]
    for parent, below in itertools.pairwise([*parents, name]):
        is_list, child = isinstance(below, int), result.get(parent)
        fits = isinstance(child, SourcedDict) and isinstance(child, Elements) is is_list
        if parent in result and not fits:
            message = f"{parent!r} was set to something else before"
            return [Problem("conflict", path, message, origin)]
        if child is None:
            result.put(parent, child := Elements() if is_list else Parts(), origin)
        result = child
    if name in result:
        return [Problem("syntax", path, "is set twice in one override", origin)]
    result.put(name, value, origin)
    return []
