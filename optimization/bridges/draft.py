"""What a bridge reads and writes: a source, key by key, and the draft of a config of ours.

A bridge asks its `Source` for each key that it knows. What it has not asked for in the end is known
to be no matter of the optimizer, or is listed: nothing is dropped.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from optimization.configs.errors import ConfigError, Origin, Problem, describe, did_you_mean

LOST, DIFFERS, UNKNOWN, NOTE = "lost", "differs", "unknown", "note"
"""Kinds of findings: not carried over, carried over as something else, of unknown meaning, and
what is to be known beside what was carried over."""

LARGEST = 1e15  # beyond, and NaN, nobody means a number
_NEAR = 0.8  # `wieght_decay` is near `weight_decay`; `warmup_epochs` is not near `warmup_steps`
_SAID = {LOST: "not carried over", DIFFERS: "differs", UNKNOWN: "unknown key", NOTE: "note"}


class Finding(NamedTuple):
    """What a conversion has to tell about a value of the source.

    >>> print(Finding(LOST, "lookahead", True, "there is none here", "wrap it", Origin("a", 3)))
    a:3: lookahead: true is not carried over: there is none here. Do by hand: wrap it

    Attributes:
        kind: `lost`, `differs`, `unknown` or `note`.
        path: The dotted path in the source.
        value: What is written there.
        why: The reason, or by how much it differs.
        todo: What to do by hand; "" for nothing.
        origin: The file and line, as far as known.
    """

    kind: str
    path: str
    value: Any
    why: str
    todo: str = ""
    origin: Origin | None = None

    def __str__(self) -> str:
        place = f"{self.origin}: {self.path}" if self.origin else self.path
        return f"{place}: {self.text}"

    @property
    def text(self) -> str:
        """What there is to say, without the place."""
        said = _SAID[self.kind]
        if self.kind in (LOST, DIFFERS) and self.value is not None:
            shown = repr(self.value) if isinstance(self.value, str) else describe(self.value)
            said = f"{shown} {'is ' if self.kind == LOST else ''}{said}"
        if self.kind == UNKNOWN:
            said = f"{said}; {self.why}" if self.why else said
        elif self.why:
            said = f"{said}: {self.why}"
        if self.todo:
            said += f"{'' if said.endswith('?') else '.'} Do by hand: {self.todo}"
        return said


class Taken(NamedTuple):
    """A value of a source, and the comment that says from where it is."""

    value: Any
    comment: str


class Source:
    """Reads a mapping of another library, and remembers which keys were asked for.

    Args:
        mapping: The values, as `files.read` returns them.
        file: The file's name, for messages.
        defaults: What the library takes for a key that is not there.
        library: Whose defaults they are, for comments.
        names: What the source calls keys that it has under other names than those asked for.
        prefix: The path of the mapping in the file.
        links: Keys that stand elsewhere: the source and the key there.
    """

    def __init__(
        self,
        mapping: Mapping[str, Any],
        file: str = "",
        *,
        defaults: Mapping[str, Any] | None = None,
        library: str = "",
        names: Mapping[str, str] | None = None,
        prefix: str = "",
        links: "Mapping[str, tuple[Source, str]] | None" = None,
    ):
        self.mapping, self.file, self.prefix = mapping, file, prefix
        self.links = links or {}
        self.defaults, self.library, self.names = defaults or {}, library, names or {}
        self.asked: set[str] = set()

    def path(self, key: str) -> str:
        """Returns the dotted path of a key in the file."""
        if key in self.links:
            return self.links[key][0].path(self.links[key][1])
        return f"{self.prefix}{self.names.get(key, key)}"

    def origin(self, key: str) -> Origin:
        """Returns where a key stands: its file, and its line where that is known."""
        if key in self.links:
            return self.links[key][0].origin(self.links[key][1])
        found = getattr(self.mapping, "origins", {}).get(self.names.get(key, key))
        return found or Origin(self.file)

    def has(self, key: str) -> bool:
        """Says whether a key is there with a value that is not null."""
        if key in self.links:
            return self.links[key][0].has(self.links[key][1])
        return self.mapping.get(self.names.get(key, key)) is not None

    def take(self, key: str) -> Taken:
        """Returns the value of a key, or the library's default."""
        if key in self.links:
            return self.links[key][0].take(self.links[key][1])
        self.asked.add(self.names.get(key, key))
        if self.has(key):
            return Taken(self.mapping[self.names.get(key, key)], self.path(key))
        return Taken(self.defaults.get(key), f"{self.path(key)}: default of {self.library}")

    def number(self, key: str) -> Taken:
        """Returns a number; text that is one counts, as whoever reads the source has it."""
        taken = self.take(key)
        if taken.value is None:
            return taken
        value = as_number(taken.value)
        if value is None or not -LARGEST <= value <= LARGEST:
            self.refuse(key, f"expected a number, got {describe(taken.value)}")
        return taken._replace(value=value)

    def whole(self, key: str) -> Taken:
        """Returns a whole number."""
        taken = self.number(key)
        if taken.value is not None and taken.value != int(taken.value):
            self.refuse(key, f"expected a whole number, got {describe(taken.value)}")
        return taken if taken.value is None else taken._replace(value=int(taken.value))

    def positive(self, key: str, most: float = math.inf) -> Taken:
        """Returns a whole number above 0, `most` at most, which must be there."""
        taken = self.whole(key)
        if taken.value is None or taken.value <= 0:
            self.refuse(key, f"expected a whole number > 0, got {describe(taken.value)}")
        if taken.value > most:
            self.refuse(key, f"expected at most {most:,}, got {taken.value!r}")
        return taken

    def numbers(self, key: str, count: int | None = None) -> Taken:
        """Returns a list of numbers, `count` of them if that is given."""
        taken = self.take(key)
        values = taken.value if isinstance(taken.value, list | tuple) else [None]
        found = [as_number(value) for value in values]
        if None in found or count not in (None, len(found)):
            wanted = "a list of numbers" if count is None else f"a list of {count} numbers"
            self.refuse(key, f"expected {wanted}, got {describe(taken.value)}")
        return taken._replace(value=found)

    def flag(self, key: str) -> bool:
        """Returns whether a switch is on."""
        value = self.take(key).value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool | None):
            self.refuse(key, f"expected true or false, got {describe(value)}")
        return bool(value)

    def text(self, key: str) -> Taken:
        """Returns a name; the member of an enumeration, `Kind.NAME`, is its name."""
        taken = self.take(key)
        if not isinstance(taken.value, str | None):
            self.refuse(key, f"expected a name, got {describe(taken.value)}")
        kind, _, name = (taken.value or "").partition(".")
        if kind[:1].isupper() and name.isupper():
            taken = taken._replace(value=name.lower())
        return taken

    def section(self, key: str, **options: Any) -> "Source":
        """Returns the source of a mapping inside of this one; an empty one where there is none."""
        value = self.take(key).value
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            self.refuse(key, f"expected a mapping, got {describe(value)}")
        options = {"library": self.library, **options}
        return Source(value, self.file, prefix=f"{self.path(key)}.", **options)

    def refuse(self, key: str, message: str) -> NoReturn:
        """Raises the error of a value that the source's own library refuses too."""
        raise ConfigError([Problem("value", self.path(key), message, self.origin(key))])

    def unread(self) -> list[str]:
        """Returns the keys that were not asked for."""
        return [key for key in self.mapping if key not in self.asked]


def as_number(value: Any) -> float | int | None:
    """Returns a number, or what a text that is one means; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return None


class Draft:
    """A config of ours as it is made: values, from where each is, and what there is to tell.

    Attributes:
        values: The nested mapping of the config.
        comments: From where a value is, by its dotted path.
        findings: What there is to tell, in order.
        no_matter: Keys that do not concern the optimizer, by the name of their list.
        required: The sections that must have a type.
    """

    required: tuple[str, ...] = ("optimizer", "learning_rate")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.comments: dict[str, str] = {}
        self.findings: list[Finding] = []
        self.no_matter: dict[str, list[str]] = {}
        self.title = ""

    def put(self, path: str, value: Any, comment: str = "") -> None:
        """Sets the value at a dotted path of our config."""
        if isinstance(value, Taken):
            value, comment = value.value, comment or value.comment
        *sections, name = path.split(".")
        place = self.values
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
        if comment:
            self.comments[path] = comment

    def drop(self, name: str) -> None:
        """Takes a section back, with its comments."""
        self.values.pop(name, None)
        gone = [path for path in self.comments if path.partition(".")[0] == name]
        for path in gone:
            del self.comments[path]

    def tell(self, kind: str, source: Source, key: str, why: str, todo: str = "") -> None:
        """Adds a finding about a key of a source."""
        value = source.take(key).value
        path, origin = source.path(key), source.origin(key)
        self.findings.append(Finding(kind, path, value, why, todo, origin))

    def lose(self, source: Source, keys: Iterable[str], section: str = "optimizer") -> None:
        """Adds a finding about each key that there is: what it belongs to is not carried over."""
        for key in keys:
            if source.has(key):
                self.tell(LOST, source, key, f"it stands in the section of the {section}")
            source.take(key)

    def sort_out(
        self, source: Source, no_matter: Mapping[str, str], known: Iterable[str] = ()
    ) -> None:
        """Sorts the keys that were not asked for: of no matter, or unknown.

        `no_matter` are lists of keys, with blanks between them, by name; `known` are the others
        that may be meant by a key that nobody knows, and that are lost where nobody asked for them.
        """
        known = set(known)
        groups = {key: group for group, keys in no_matter.items() for key in keys.split()}
        names = [*sorted(known), *source.asked, *groups]  # without those that are told below
        for key in source.unread():
            group = groups.get(key)
            if group is not None or source.mapping[key] is None:
                self.no_matter.setdefault(group or "null", []).append(source.path(key))
                continue
            if key in known:
                self.tell(LOST, source, key, "what it belongs to is not carried over either")
                continue
            hint = did_you_mean(key, names, _NEAR).removeprefix("; ")
            todo = "" if hint else "if it concerns the optimizer, write what it means"
            self.tell(UNKNOWN, source, key, hint, todo)

    @property
    def incomplete(self) -> bool:
        """Whether something of the source is not in the config as it is there."""
        return any(finding.kind != NOTE for finding in self.findings)
