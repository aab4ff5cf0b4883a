"""`Node`: a config as a part of a tree of configs: its fields, its place, what was written where.

What a class may change of how it is checked are the hooks at the end of `Node`, which
`optimization.configs.planning` calls.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from optimization.configs.errors import (
    DEFAULT,
    Origin,
    Problem,
    after_comma,
    describe,
    did_you_mean,
    known,
)
from optimization.configs.fields import config_dataclass, field
from optimization.configs.other_words import our_word
from optimization.configs.types import REQUIRED, Duration, check_value, is_pending, members


class FieldSpec(typing.NamedTuple):
    """How one field of a config is checked and what it starts as."""

    annotation: Any  # its type, with the range
    config_class: "type[Node] | None"  # of the section that it holds; None for a plain value
    optional: bool  # whether None is a value of it
    default: Callable[[], Any]  # makes what it starts as
    null: bool = False  # whether it was declared that null means the default


def _spec(annotation: Any, field: dataclasses.Field) -> FieldSpec:
    optional = type(None) in typing.get_args(annotation)
    only, *others = members(annotation)
    is_config = not others and isinstance(only, type) and issubclass(only, Node)
    make: Any = field.default_factory
    if make is dataclasses.MISSING:
        default = REQUIRED if field.default is dataclasses.MISSING else field.default
        make = lambda: default  # noqa: E731
    null = field.metadata.get("null", False)
    return FieldSpec(annotation, only if is_config else None, optional, make, null)


_specs: dict[type, dict[str, FieldSpec]] = {}


def declared_specs(cls: "type[Node]") -> dict[str, FieldSpec]:
    """Returns how each field of a config class is declared, by name."""
    if cls not in _specs:
        hints = typing.get_type_hints(cls, include_extras=True)
        fields = dataclasses.fields(config_dataclass(cls))
        _specs[cls] = {f.name: _spec(hints[f.name], f) for f in fields}
    return _specs[cls]


@typing.dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field, field))
class Node:
    """A config as a part of a tree of configs."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]  # of each subclass

    _NOTHING: ClassVar[str] = "{} to set nothing"
    _MAIN: ClassVar[str] = ""  # the field that a number in the place of the section would mean
    # Fields that came later: unless they are set, what is exported is what it was before.
    _LEFT_OUT: ClassVar[tuple[str, ...]] = ()

    _path: str  # from the root
    _locked: bool
    _origins: dict[str, Origin]  # of the values that were written
    _left: set[str]  # of those, the ones that no longer have an effect by intention
    _told: frozenset[str]  # the warnings that were issued

    def _start(self) -> None:
        """Gives each field what it starts as."""
        state = self.__dict__
        state.update(_path="", _locked=False, _origins={}, _left=set(), _told=frozenset())
        for name, spec in declared_specs(type(self)).items():
            value = spec.default()
            if isinstance(value, Node):
                value._move(name)
            state[name] = value

    @classmethod
    def _find_spec(cls, name: str) -> FieldSpec | None:
        return declared_specs(cls).get(name)

    @classmethod
    def _spec_of(cls, name: str) -> FieldSpec:
        """Returns the spec of a field; a KeyError where there is none."""
        spec = cls._find_spec(name)
        if spec is None:
            raise KeyError(f"{cls.__name__} has no field {name!r}")
        return spec

    @classmethod
    def field_names(cls) -> list[str]:
        return list(declared_specs(cls))

    def _items(self) -> Iterator[tuple[str, Any]]:
        """Yields the fields that count: all that are exported, or a oneof's type and its branch."""
        usual = self._left_out().items()
        items = ((name, self.__dict__[name]) for name in self.field_names())
        return (item for item in items if item not in usual) if usual else items

    @classmethod
    def _left_out(cls) -> dict[str, Any]:
        """Returns the fields that are not exported while they are what they start as, with that."""
        found = ((name, cls._find_spec(name)) for name in cls._LEFT_OUT)
        return {name: spec.default() for name, spec in found if spec is not None}

    def _changed(self) -> Iterator[tuple[str, Any]]:
        """Yields the name and the value of each field that differs from its default."""
        usual = self._defaults()
        yield from ((name, value) for name, value in self._items() if value != usual[name])

    def _defaults(self) -> dict[str, Any]:
        """Returns what the fields of a config start as, all else being as it is in this one."""
        return {name: spec.default() for name, spec in declared_specs(type(self)).items()}

    def _children(self) -> "dict[str, Node]":
        """Returns the configs that this one holds, also those inside lists and mappings."""
        return {
            name + place: config
            for name, value in self.__dict__.items()
            for place, config in configs_in(value)
        }

    def selected(self) -> "Iterator[Node]":
        """Yields the configs directly below that count: all, or a oneof's selected branch."""
        for _, value in self._items():
            yield from (config for _, config in configs_in(value))

    def _join(self, name: str) -> str:
        text = name if isinstance(name, str) else describe(name)
        return f"{self._path}.{text}" if self._path else text

    def _move(self, path: str) -> None:
        """Records `path` as the place of this config below its root."""
        self.__dict__["_path"] = path
        for name, child in self._children().items():
            child._move(self._join(name))

    def _set_locked(self, locked: bool) -> None:
        self.__dict__["_locked"] = locked
        for child in self._children().values():
            child._set_locked(locked)

    def _written_at(self) -> Iterator[Origin]:
        """Yields where values here or below were set, but for those that `_leave` has left."""
        for name, origin in self._origins.items():
            if name not in self._left and self.__dict__[name] is not REQUIRED:
                yield origin
        for child in self._children().values():
            yield from child._written_at()

    def _leave(self) -> None:
        """Records that what was written here had its effect, and no longer has by intention."""
        self.__dict__["_left"] = set(self._origins)
        for child in self._children().values():
            child._leave()

    def _origin_near(self, name: str) -> Origin:
        """Where `name` was written, or else any other value of this config, or one below."""
        own = self._origins.get(name) or next(iter(self._origins.values()), None)
        return own or next(self._written_at(), DEFAULT)

    def _holder(self, path: str) -> "tuple[Node, str]":
        """Returns the config below that has the value at a path, and the value's name there."""
        for place, child in self._children().items():
            if path.startswith(f"{place}."):
                return child._holder(path.removeprefix(f"{place}."))
        return self, path

    def _problem(self, code: str, name: str, message: str) -> Problem:
        """Returns a problem of a field, or of one below at a path such as `phases[0].until`."""
        holder, own = self._holder(name)
        return Problem(code, self._join(name), message, known(holder._origin_near(own)))

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and the warnings that `validate()` raises and issues."""
        problems: list[Problem] = []
        doubts: list[Problem] = []
        incomplete = False
        for name, value in self._items():
            incomplete = incomplete or value is REQUIRED or is_pending(value)
            if value is REQUIRED:
                message = "a value is required, none was given"
                problems.append(self._problem("missing", name, message))
            for _, config in configs_in(value):
                found = config.problems()
                problems += found[0]
                doubts += found[1]
        told = [*self.check_early(), *(() if incomplete else self.check() or ())]
        problems += [self._problem("conflict", name, text) for name, text in told]
        return problems, doubts

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields the field and the message of each contradiction between this config's values.

        Subclasses override it. It runs when every required value of the config itself is set, and
        every number of steps is a number.
        """
        return iter(())

    def check_early(self) -> Iterator[tuple[str, str]]:
        """Yields, as `check` does, what holds before numbers of steps and required values do."""
        return iter(())

    def _tell(self, doubts: Sequence[Problem]) -> None:
        """Remembers the warnings that were issued, here and below, for what is made of this."""
        if not doubts:
            return
        self.__dict__["_told"] = self._told | {str(doubt) for doubt in doubts}
        for child in self._children().values():
            child._tell(doubts)

    def _expanded(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """A hook for a value that stands for several: returns `params`, unchecked, with them."""
        return params

    def _check_field(self, name: str, value: Any) -> list[Problem]:
        """A hook for checks of one value that its type cannot express."""
        return []

    def _relevant(self, params: Mapping[str, Any], problems: list[Problem]) -> list[Problem]:
        """A hook that leaves out what is wrong with `params` only because of something else."""
        return problems

    def _before_change(self, name: str, value: Any) -> None:
        """A hook that is called before any change of a layer is made."""

    def _is_unset(self, name: str, value: Any) -> bool:
        """Whether `value` is a null that says that the field `name` is not set."""
        spec = self._find_spec(name)
        if value is not None or spec is None or spec.config_class is not None:
            return False
        # Null can only mean the default where that is none or stands for it: a required value, 0,
        # false, nothing, the whole training. Elsewhere it might mean none as well.
        default = spec.default()
        is_clear = spec.null or not default or isinstance(default, Duration)
        return is_clear and bool(check_value(spec.annotation, None, name)[1])

    def _section_to_write(self, value: Any) -> str:
        """A hook for the message about a value where a section is expected: what to write."""
        if value is True:
            return "; write {} for the defaults"
        spec = self._find_spec(self._MAIN)
        if spec is None or check_value(spec.annotation, value, "")[1]:
            return ""
        return f"; write {{{self._MAIN}: {value}}}"

    def _unknown(self, name: Any, rest: str = "") -> str:
        """Returns what is wrong with the key `name`; `rest` is the path that was written below."""
        below = " or ".join(f"'{place}{rest}'" for place in self._places_below(name))
        if below:
            return f"unknown key; did you mean {below}?"
        if after_comma(name):
            return f"unknown key{after_comma(name)}"
        names = self.field_names()
        if isinstance(name, str) and name.split(".")[0] in names:
            first, *others = name.split(".")
            nested = "".join(f"{{{part}: " for part in others) + "..." + "}" * len(others)
            return f"unknown key; a key has no dots, write `{first}: {nested}`"
        near = our_word(name, names) or did_you_mean(name, names)
        return f"unknown key{near or '; the keys are ' + ', '.join(names)}"

    def _places_below(self, name: Any) -> list[str]:
        """Returns the paths, from the root, of the highest fields below that are called `name`."""
        level: list[Node] = [self]
        while level:
            level = [child for config in level for child in config.selected()]
            places = [config._join(name) for config in level if name in config.field_names()]
            if places:
                return places[:3]
        return []


def configs_in(value: Any) -> Iterator[tuple[str, Node]]:
    """Yields each config in a field's value, with its place in it: "", "[0]", ".key"."""
    if isinstance(value, Node):
        yield "", value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from ((f"[{index}]{place}", config) for place, config in configs_in(item))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from ((f".{key}{place}", config) for place, config in configs_in(item))
