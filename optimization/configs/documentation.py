"""`help()` of a config: each of its fields with meaning, type, range and default.

A docstring describes the fields of its own class; those of base classes, and what a type says by
itself, are added when the docstring is read.
"""

import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from optimization.configs.tree import Node, declared_specs
from optimization.configs.types import REQUIRED, Unit, kinds_of

_SECTION = "Attributes:"
_WIDTH = 100
_NAMES = {bool: "true or false", int: "integer", float: "number", str: "text"}


class CompleteDoc:
    """The docstring of a config class, of which `text` is written, completed when it is read."""

    def __init__(self, cls: type, text: str | None):
        self.cls = cls
        self.text = text

    def __get__(self, instance: Any, owner: type | None = None) -> str | None:
        members = vars(self.cls)
        # The dataclass decorator looks here too, before it adds what it adds last.
        is_in_the_making = "__match_args__" not in members and isinstance(
            members.get("__dataclass_fields__"), dict
        )
        return self.text if is_in_the_making else complete(self.cls)


def document(cls: type) -> None:
    """Makes `cls.__doc__` describe every field."""
    text = vars(cls).get("__doc__")
    if not isinstance(text, CompleteDoc):
        made_by_dataclass = text is not None and text.startswith(f"{cls.__name__}(")
        doc = CompleteDoc(cls, None if made_by_dataclass else text)
        cls.__doc__ = doc  # type: ignore[assignment]  # typeshed knows no descriptor here


def complete(cls: type, names: Collection[str] | None = None) -> str:
    """Returns the docstring of a config class, with an entry for each field, or for those named."""
    body, _ = _parts(cls)
    names = declared_specs(cls) if names is None else names
    entries = [_entry(cls, name) for name in in_order(cls) if name in names]
    parts = [body or f"The section `{cls.__name__}`.", "\n".join([_SECTION, *entries])]
    return "\n\n".join(parts) + "\n"


def in_order(cls: type) -> list[str]:
    """Returns the fields of a config class, its own first, then those of its bases."""
    nearest = dict.fromkeys(n for base in cls.__mro__ for n in inspect.get_annotations(base))
    return [name for name in nearest if name in declared_specs(cls)]


def type_text(annotation: Any) -> str:
    """Returns a type with its range in words, such as `number in [0, 1)`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _annotated_text(args[0], args[1:])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(arg) for arg in args))
    if origin is Literal:
        return " or ".join(value_text(arg) for arg in args)
    if origin in (tuple, list, Sequence):
        return f"list (each: {type_text(args[0])})"
    if origin in (dict, Mapping):
        return f"mapping (each: {type_text(args[1])})"
    if annotation in (None, types.NoneType):
        return "null"
    return _NAMES.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _annotated_text(base: Any, metadata: Sequence[Any]) -> str:
    text, limits = type_text(base), " and ".join(_limits(metadata))
    kinds = kinds_of(metadata)
    if "regex" in kinds:
        return "regular expression"
    if "steps" in kinds:
        if "period" in kinds:
            return f"'step', 'epoch', or optimizer steps {limits}"
        remaining = "" if "first" in kinds else ", 'remaining'"
        return f"optimizer steps {limits}, '5 epochs', '10%'{remaining}"
    if any(isinstance(item, MinLen) for item in metadata):
        text += ", not empty"
    return f"{text} {limits}".rstrip()


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    for item in metadata:
        low = getattr(item, "ge", None), getattr(item, "gt", None)
        high = getattr(item, "le", None), getattr(item, "lt", None)
        if isinstance(item, Interval) and any(x is not None for x in low):
            left = f"[{low[0]}" if low[0] is not None else f"({low[1]}"
            right = f"{high[0]}]" if high[0] is not None else f"{high[1]})"
            yield f"in {left}, {right}"
        elif isinstance(item, Ge | Gt | Le | Lt):
            sign = {Ge: ">=", Gt: ">", Le: "<=", Lt: "<"}[type(item)]
            yield f"{sign} {next(x for x in (*low, *high) if x is not None)}"


def value_text(value: Any) -> str:
    """Returns a value of a config nearly as a file has it: `null`, `true`, `'sgd'`, `[1, 2]`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {value_text(item)}' for key, item in value.items())}}}"
    return value_text(dict(value._changed())) if isinstance(value, Node) else repr(value)


class FieldDoc(typing.NamedTuple):
    """What is known of one field of a config."""

    type: str  # with its range, as `type_text` says it
    unit: str  # such as "optimizer steps"; "" for none
    default: str  # as a file has it; "required" where there is none, "" of a section
    meaning: str

    @property
    def facts(self) -> str:
        """The type, the unit if the type does not say it, and the default."""
        unit = "" if self.unit in self.type else f" ({self.unit})"
        usual = f"default {self.default}" if self.default != "required" else self.default
        return f"{self.type}{unit}" + (f"; {usual}" if self.default else "")


def field_doc(cls: "type[Node]", name: str) -> FieldDoc:
    """Returns what is known of a field: from its type, and from the nearest class's docstring.

    Raises:
        KeyError: If there is no such field.
    """
    spec = cls._spec_of(name)
    default = spec.default()
    usual = ""
    if default is REQUIRED:
        usual = "required"
    elif not isinstance(default, Node):
        usual = value_text(default)
    meaning = next((own[name] for base in cls.__mro__ if name in (own := _parts(base)[1])), "")
    if name == "type" and hasattr(cls, "branches"):  # a oneof
        meaning += f" The types are {', '.join(cls.branches())}."
    if not meaning and spec.config_class is not None:  # a branch of a oneof
        meaning = first_sentence(spec.config_class)
    return FieldDoc(type_text(spec.annotation), unit_of(spec.annotation), usual, meaning)


def description(cls: type) -> str:
    """Returns what a class's docstring says before its fields."""
    return _parts(cls)[0]


def first_sentence(thing: Any) -> str:
    """Returns the first sentence of a class's or a function's docstring; "" where there is none."""
    doc = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    text = doc.text if isinstance(doc, CompleteDoc) else doc
    paragraph = " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[^.]\.)\s+(?=[A-Z`])", paragraph)[0]


def unit_of(annotation: Any) -> str:
    """Returns the unit that an annotation says: "optimizer steps" or a `Unit`; "" for none."""
    metadata = getattr(annotation, "__metadata__", ())
    if "steps" in kinds_of(metadata):
        return "optimizer steps"
    own = [item.text for item in metadata if isinstance(item, Unit)]
    parts = typing.get_args(annotation)
    return next(iter([*own, *filter(None, map(unit_of, parts))]), "")


def _entry(cls: type, name: str) -> str:
    doc = field_doc(cls, name)
    text = f"{name} ({doc.facts}): {doc.meaning}".removesuffix(": ")
    return textwrap.fill(
        text, _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False
    )


@functools.cache
def _parts(cls: type) -> tuple[str, dict[str, str]]:
    """Returns what a class's docstring says before its fields, and what it says of each."""
    doc = vars(cls).get("__doc__")
    text = doc.text if isinstance(doc, CompleteDoc) else doc
    body, _, section = inspect.cleandoc(text or "").partition(f"{_SECTION}\n")
    if not section:  # of a function or a class that is registered without a config
        section = inspect.cleandoc(text or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(section).splitlines():
        if line and not line.startswith(" "):
            name, _, line = line.partition(":")
        if name:
            entries[name] = f"{entries.get(name, '')} {line.strip()}".strip()
    return body.rstrip(), entries
