"""A strict YAML reader that remembers the line of every value, and a writer.

Read are YAML 1.2 scalars (`1e-4`, `1.5e5` and `.5e3` are numbers, `yes` and `on` are text, and
`1_000` is a number too). Refused are duplicate keys, tags other than YAML's own and PyYAML's for
plain values (`!!python/tuple` and `!!python/list`, both lists, in Model Garden's files), and files
that expand beyond bounds. PyYAML does the parsing; its own loaders are left as they are.
"""

import os
import re
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from optimization.configs.errors import Origin, Problem, cannot_be_read, describe
from optimization.configs.text_files import NotReadError, most_bytes, read_text, too_large

_TAG = "tag:yaml.org,2002:"
MAX_DEPTH = 50
MAX_VALUES = 100_000
if TYPE_CHECKING:
    from yaml import SafeLoader as BaseLoader
else:
    # The scanner of Python is stricter than that of C: a tab behind a value is an error there.
    BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _BeyondBoundsError(Exception):
    """A document is too deep, or has too many values."""


class _Loader(BaseLoader):
    """Resolves plain scalars by the core schema of YAML 1.2, and bounds depth and number."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  its own, PyYAML's is left alone
    depth = 0
    nodes = 0

    # PyYAML calls these two around each node. It recurses into nodes, in C without a check of its
    # own, so that deep nesting would end the process.

    def descend_resolver(self, current_node: Node | None, current_index: Any) -> None:
        self.depth += 1
        self.nodes += 1
        if self.depth > MAX_DEPTH:
            raise RecursionError
        if self.nodes > MAX_VALUES:  # a document that is refused later takes seconds to compose
            raise _BeyondBoundsError
        super().descend_resolver(current_node, current_index)

    def ascend_resolver(self) -> None:
        self.depth -= 1
        super().ascend_resolver()


_RESOLVERS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)
for _name, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))

_OF_PYTHON = {name: name for name in ("str", "int", "float", "bool")}
_OF_PYTHON |= {"tuple": "seq", "list": "seq", "dict": "map", "unicode": "str", "long": "int"}
_PLAIN_TAGS = {f"{_TAG}python/{name}": _TAG + tag for name, tag in _OF_PYTHON.items()}
_PLAIN_TAGS[f"{_TAG}python/none"] = f"{_TAG}null"
"""The tags that YAML has for values of which PyYAML's tags say what they are in Python."""


def _plain_tag(node: Node) -> str:
    return _PLAIN_TAGS.get(node.tag, node.tag)


class SourcedDict(dict):
    """A mapping read from a file or a flag, with the origin of each value by its key."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[Any, Origin] = {}

    def put(self, key: Any, value: Any, origin: Origin) -> None:
        self[key] = value
        self.origins[key] = origin


class Elements(SourcedDict):
    """Changes to single elements of a list, by their index; only an override writes them."""


class Parts(SourcedDict):
    """Changes to single values of a mapping, by their names; only the path of an override does."""


class _Reader:
    """Turns the nodes of one document into values."""

    def __init__(self, source: str):
        self.source = source
        self.values = 0
        self.depth = 0
        self.problems: list[Problem] = []

    def read(self, node: Node) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            self._refuse(node, f"expands to more than {MAX_VALUES:,} values; aliases?")
            raise _BeyondBoundsError
        if self.depth >= MAX_DEPTH:
            self._refuse(node, f"nested more than {MAX_DEPTH} levels deep")
            raise _BeyondBoundsError
        read: dict[type, Callable[[Any], Any]]
        read = {MappingNode: self._mapping, SequenceNode: self._sequence, ScalarNode: self._scalar}
        self.depth += 1
        value = read[type(node)](node)
        self.depth -= 1
        return value

    def _refuse(self, node: Node, message: str) -> None:
        self.problems.append(Problem("syntax", "", message, self._origin(node)))

    def _origin(self, node: Node) -> Origin:
        return Origin(self.source, node.start_mark.line + 1)

    def _refuse_tag(self, node: Node) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self._refuse(node, f"the tag {tag} is not allowed; write plain values")

    def _sequence(self, node: SequenceNode) -> list:
        if _plain_tag(node) != f"{_TAG}seq":
            self._refuse_tag(node)
        return [self.read(item) for item in node.value]

    def _mapping(self, node: MappingNode) -> SourcedDict:
        if _plain_tag(node) != f"{_TAG}map":
            self._refuse_tag(node)
        result = SourcedDict()
        lines: dict[Hashable, int] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            key = self.read(key_node)
            if not isinstance(key, Hashable):
                self._refuse(key_node, "a key must be text, not a list")
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                first = f"first on line {lines[key]}"
                self._refuse(key_node, f"duplicate key {key!r}, {first}, again on line {line}")
                continue
            lines[key] = line
            if key_node.tag == f"{_TAG}merge":
                merged.append(value_node)
                continue
            known = len(self.problems)
            value = self.read(value_node)
            if len(self.problems) == known or not isinstance(value_node, ScalarNode):
                result.put(key, value, self._origin(key_node))
        for value_node in merged:
            self._merge(value_node, result)
        return result

    def _merge(self, node: Node, result: SourcedDict) -> None:
        parts = node.value if isinstance(node, SequenceNode) else [node]
        for part in parts:
            if not isinstance(part, MappingNode):
                self._refuse(part, "`<<` takes a mapping or a list of them")
                continue
            for key, value in (source := self.read(part)).items():
                if key not in result:
                    result.put(key, value, source.origins[key])

    def _scalar(self, node: ScalarNode) -> Any:
        text = node.value
        match _plain_tag(node).removeprefix(_TAG):
            case "str" | "merge":
                return text
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" | "float" as kind:
                try:
                    return _number(text, kind)
                except ValueError:
                    self._refuse(node, f"{describe(text)} is not a number")
                    return None
        self._refuse_tag(node)
        return None


def _number(text: str, kind: str) -> int | float:
    if kind == "float":
        return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower())
    if text.startswith(("0o", "0x")):
        text = str(int(text, 0))  # which has a most of digits, as decimal text has
    return int(text.replace("_", ""))


def read(text: str, source: str = "<text>") -> tuple[Any, list[Problem]]:
    """Reads one YAML (or JSON) document, called `source` in messages, as far as it can be read.

    Returns:
        Plain values, each mapping a `SourcedDict`, None for an empty document or one that is not
        YAML; and the problems, with their lines.
    """
    if len(text) > most_bytes():
        return None, [Problem("syntax", "", too_large(), Origin(source))]
    try:
        node = yaml.compose(text, _Loader)
    except _BeyondBoundsError:
        return None, [Problem("syntax", "", f"has more than {MAX_VALUES:,} values", Origin(source))]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return None, [_syntax_problem(error, text, source)]
    reader = _Reader(source)
    try:
        return None if node is None else reader.read(node), reader.problems
    except _BeyondBoundsError:
        return None, reader.problems


_HINTS = (
    (
        "mapping values are not allowed",
        "the line is indented deeper than the one it goes with, or "
        "has a second `: ` in a text without quotes",
    ),
    ("parsing a block", "the line is indented otherwise than those beside it"),
    ("parsing a flow", "a bracket is not closed, or a comma is missing"),
    ("could not find expected ':'", "a key has `: ` and a value after it"),
    ("quoted scalar", "a quote is not closed"),
    ("undefined alias", "a text that begins with `*` needs quotes"),
    ("cannot start any token", "the text needs quotes"),
)
"""What is most often meant by a message of YAML's parser, by words of it."""


def _syntax_problem(error: Exception, text: str, source: str) -> Problem:
    if isinstance(error, RecursionError):
        return Problem("syntax", "", f"nested more than {MAX_DEPTH} levels deep", Origin(source))
    mark = getattr(error, "problem_mark", None)
    words = [getattr(error, "context", None), getattr(error, "problem", None)]
    message = ", ".join(word for word in words if word) or str(error).splitlines()[0]
    if mark is None:
        return Problem("syntax", "", f"not YAML: {message}", Origin(source))
    if any(line.lstrip(" ").startswith("\t") for line in text.split("\n")[mark.line :][:1]):
        message = "the line begins with a tab; YAML is indented by spaces"
    message += next((f"; {hint}" for words, hint in _HINTS if words in message), "")
    context = getattr(error, "context_mark", None)
    if context is not None and context.line < mark.line and "in a block" not in message:
        message += f" (it begins in line {context.line + 1})"
    return Problem("syntax", "", f"not YAML: {message}", Origin(source, mark.line + 1))


def read_file(path: str | os.PathLike) -> tuple[SourcedDict, list[Problem]]:
    """Reads the mapping in a YAML file, empty if there is none, as far as it can be read."""
    source = os.fspath(path)
    problems: list[Problem] = []
    try:
        value, problems = read(read_text(path), source)
        if isinstance(value, SourcedDict) or value is None:
            return value or SourcedDict(), problems
        message = f"must hold a mapping of settings, holds {describe(value)}"
    except OSError as error:
        message = cannot_be_read(source, error)
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text: {error.reason} at byte {error.start}"
    except NotReadError as error:
        message = str(error)
    return SourcedDict(), [*problems, Problem("syntax", "", message, Origin(source))]


class _Dumper(yaml.SafeDumper):
    """Writes lists of plain values on one line, as people write them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, data: list) -> Node:
    flow = all(not isinstance(item, list | dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


def _represent_text(dumper: yaml.SafeDumper, data: str) -> Node:
    # PyYAML judges by YAML 1.1 which text needs quotes; this reader reads 1.2.
    numeric = _Loader.yaml_implicit_resolvers.get(data[:1], [])
    style = "'" if any(pattern.match(data) for _, pattern in numeric) else None
    if not data.isprintable():  # line breaks of every kind come back only from double quotes
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)
_Dumper.add_multi_representer(dict, yaml.SafeDumper.represent_dict)  # also those with sources
_Dumper.add_multi_representer(list, _represent_list)


def dump(value: Any) -> str:
    """Returns `value`, nested plain values, as YAML text that `read` reads back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
