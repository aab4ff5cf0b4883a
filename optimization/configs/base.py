"""`Config` and `OneOfConfig`: strict dataclasses that are built, layered, locked and exported.

Every value, whether it comes from a constructor, an attribute assignment, a file or a flag, passes
the same door, `Config._plan`. A type or range is checked where a value is set; what concerns
several fields, and values that must be given and are not, is checked by `validate()`, since layers
come one after another.
"""

import copy
import dataclasses
import json
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Self

from optimization.configs import yaml_file
from optimization.configs.documentation import document
from optimization.configs.errors import ConfigError, Origin, Problem, describe, did_you_mean, warn
from optimization.configs.types import REQUIRED, Duration, check_value, is_pending
from optimization.configs.yaml_file import Elements, SourcedDict

PYTHON = Origin("python")
DEFAULT = Origin("default")


class FieldSpec(typing.NamedTuple):
    """How one field of a config is checked and what it starts as."""

    annotation: Any
    config_class: "type[Config] | None"
    optional: bool
    field: dataclasses.Field | None

    def takes_null(self) -> bool:
        """Whether null, where it is no value, can only mean the default.

        So it is where the default is none, or stands for it: a required value, 0, false, nothing,
        the whole training. Elsewhere null might mean none as well as the default.
        """
        default = self.default()
        declared = self.field is not None and self.field.metadata.get("null", False)
        return declared or not default or isinstance(default, Duration)

    def default(self) -> Any:
        if self.field is None or self.field.default_factory is not dataclasses.MISSING:
            return (self.field.default_factory if self.field else self.config_class)()
        if self.field.default is not dataclasses.MISSING:
            return self.field.default
        return REQUIRED


def _spec(annotation: Any, field: dataclasses.Field) -> FieldSpec:
    members = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
    optional = type(None) in typing.get_args(annotation)
    is_config = (
        len(members) == 1 and isinstance(members[0], type) and issubclass(members[0], Config)
    )
    return FieldSpec(annotation, members[0] if is_config else None, optional, field)


@cache
def _declared_specs(cls: "type[Config]") -> dict[str, FieldSpec]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: _spec(hints[field.name], field) for field in dataclasses.fields(cls)}


class Change(typing.NamedTuple):
    """A checked assignment that has not been made yet."""

    config: "Config"
    name: str
    value: Any
    origin: Origin


_Class = typing.TypeVar("_Class", bound=type)


def config_dataclass(cls: _Class) -> _Class:
    """Makes a `Config` a dataclass, as `dataclasses.dataclass` does, but faster.

    That one generates a constructor, a comparison and a representation for each class, which a
    `Config` has; for all of this package they take a sixth of the time of its import.
    """
    return dataclasses.dataclass(init=False, eq=False, repr=False)(cls)


@config_dataclass
class Config:
    """A strict, mutable, lockable dataclass.

    Subclasses are ordinary dataclasses; each gets the constructor, comparison and representation
    of this class:

        @dataclasses.dataclass
        class Point(Config):
            x: float = 0.0
            y: float = REQUIRED

        Point({"x": 1, "y": 2}) == Point(x=1, y=2)

    Args:
        params: A mapping from field name to value, nested for nested configs.
        **kwargs: The same, as keywords; they win over `params`.

    Raises:
        ConfigError: For unknown keys, wrong types and impossible values, all at once.
    """

    _NOTHING: ClassVar[str] = "{} to set nothing"
    _MAIN: ClassVar[str] = ""  # the field that a number in the place of the section would mean

    def __init__(self, params: "Mapping[str, Any] | Config | None" = None, /, **kwargs: Any):
        state = self.__dict__
        state["_path"], state["_locked"], state["_origins"] = "", False, {}
        for name, spec in _declared_specs(type(self)).items():
            value = spec.default()
            if isinstance(value, Config):
                value._move(name)
            state[name] = value
        if isinstance(params, Config):
            if not isinstance(params, type(self)):
                raise TypeError(f"expected {type(self).__name__}, got {type(params).__name__}")
            params = params.as_dict()
        if params is not None:
            self._update(params)
        if kwargs:
            self._update(kwargs)
        post_init = getattr(self, "__post_init__", None)
        if post_init is not None:
            post_init()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # The dataclass decorator keeps what the class itself defines, so that a subclass marked
        # with a bare `@dataclass` keeps these too.
        for name in ("__init__", "__eq__", "__repr__"):
            if name not in cls.__dict__:
                setattr(cls, name, getattr(cls, name))
        document(cls)

    # ---- reading -------------------------------------------------------------------------------

    @classmethod
    def _find_spec(cls, name: str) -> FieldSpec | None:
        return _declared_specs(cls).get(name)

    @classmethod
    def field_names(cls) -> list[str]:
        """Returns the names of the fields."""
        return list(_declared_specs(cls))

    def _items(self) -> Iterator[tuple[str, Any]]:
        """Yields the fields that count: all of them, or a oneof's type and selected branch."""
        return ((name, self.__dict__[name]) for name in self.field_names())

    def as_dict(self) -> dict[str, Any]:
        """Returns nested plain dicts and lists; values that are required and not set are absent."""
        return {name: _export(value) for name, value in self._items() if value is not REQUIRED}

    def to_dict(self, encode_json: bool = False) -> dict[str, Any]:
        """Returns `as_dict()`; the name under which dataclasses-json asks for it."""
        del encode_json  # every value is already plain
        return self.as_dict()

    @classmethod
    def from_dict(cls, params: Mapping[str, Any], *, infer_missing: bool = False) -> Self:
        """Returns `cls(params)`; the name under which dataclasses-json asks for it."""
        del infer_missing  # a missing value has its default, or is reported by validate()
        return cls(params)

    def to_json(self, **kwargs: Any) -> str:
        """Returns the config as JSON text; keyword arguments go to `json.dumps`."""
        from dataclasses_json import DataClassJsonMixin

        return DataClassJsonMixin.to_json(self, **kwargs)

    @classmethod
    def from_json(cls, text: str | bytes, **kwargs: Any) -> Self:
        """Builds a config from JSON text; keyword arguments go to `json.loads`.

        Raises:
            ConfigError: For text that is not JSON, and as the constructor does.
        """
        from dataclasses_json import DataClassJsonMixin

        kwargs.setdefault("object_pairs_hook", _unique)
        try:
            return DataClassJsonMixin.from_json.__func__(cls, text, **kwargs)
        except json.JSONDecodeError as error:
            raise ConfigError([Problem("syntax", "", f"not JSON: {error}")]) from None

    def to_yaml(self, path: "str | os.PathLike | None" = None) -> str:
        """Returns the config as YAML text, and writes it to the file `path` if that is given."""
        text = yaml_file.dump(self.as_dict())
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return text

    @classmethod
    def from_yaml(cls, path: "str | os.PathLike") -> Self:
        """Builds a config from the YAML file `path`.

        Raises:
            ConfigError: For a file that cannot be read or is not YAML, and as the constructor does,
                with the line of each mistake.
        """
        config = cls()
        config._update(*yaml_file.read_file(path))
        return config

    def origin_of(self, path: str) -> Origin:
        """Returns where the value at the dotted `path` was written: `file:line`, flag, default.

        Raises:
            AttributeError: If there is no such value.
        """
        *parents, name = path.split(".")
        config = self
        for parent in parents:
            config = getattr(config, parent)
        if not isinstance(config, Config) or config._find_spec(name) is None:
            raise AttributeError(f"{type(self).__name__} has no value at {path!r}")
        return config._origins.get(name, DEFAULT)

    def __eq__(self, other: object) -> bool:
        """Whether both are of one class and export the same values."""
        if type(other) is not type(self):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def _changed(self) -> Iterator[tuple[str, Any]]:
        """Yields the name and the value of each field that differs from its default."""
        usual = self._defaults()
        yield from ((name, value) for name, value in self._items() if value != usual[name])

    def _defaults(self) -> dict[str, Any]:
        """Returns what the fields of a config start as, all else being as it is in this one."""
        return {name: spec.default() for name, spec in _declared_specs(type(self)).items()}

    def __repr__(self) -> str:
        """Returns the code that builds the config: the class, and what differs from defaults."""
        fields = ", ".join(f"{name}={value!r}" for name, value in self._changed())
        return f"{type(self).__name__}({fields})"

    # ---- writing -------------------------------------------------------------------------------

    def override(self, params: Mapping[str, Any]) -> None:
        """Sets the values named in `params`, and leaves all others as they are.

        Args:
            params: A nested mapping. A list replaces the list that was there. Only part of a
                oneof may be given, and branches that are not selected may be written to.

        Raises:
            ConfigError: All mistakes at once, in which case nothing was changed.
        """
        self._update(params)

    def replace(self, **kwargs: Any) -> Self:
        """Returns a copy, not locked, with the given values set.

        Raises:
            ConfigError: As `override` does.
        """
        twin = copy.deepcopy(self)
        twin._set_locked(False)
        twin._update(kwargs)
        return twin

    def lock(self) -> None:
        """Makes the config and all that it holds read-only."""
        self._set_locked(True)

    @property
    def locked(self) -> bool:
        """Whether the config is read-only."""
        return self._locked

    def __setattr__(self, name: str, value: Any) -> None:
        self._update({name: value})

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} is a field and cannot be deleted")

    def _set_locked(self, locked: bool) -> None:
        self.__dict__["_locked"] = locked
        for child in self._children().values():
            child._set_locked(locked)

    def _children(self) -> dict[str, "Config"]:
        """Returns the configs that this one holds, also those inside lists and mappings."""
        return {
            name + place: config
            for name, value in self.__dict__.items()
            for place, config in _configs_in(value)
        }

    def _move(self, path: str) -> None:
        """Records `path` as the place of this config below its root."""
        self.__dict__["_path"] = path
        for name, child in self._children().items():
            child._move(self._join(name))

    def selected(self) -> Iterator["Config"]:
        """Yields the configs directly below that count: all, or a oneof's selected branch."""
        for _, value in self._items():
            yield from (config for _, config in _configs_in(value))

    def _written(self) -> bool:
        """Whether any value here or below was set, as opposed to left at its default."""
        return any(True for _ in self._written_at())

    def _written_at(self) -> Iterator[Origin]:
        """Yields where values here or below were set, but for those that `_leave` has left."""
        left = self.__dict__.get("_left", ())
        for name, origin in self._origins.items():
            if name not in left and self.__dict__[name] is not REQUIRED:
                yield origin
        for child in self._children().values():
            yield from child._written_at()

    def _leave(self) -> None:
        """Records that what was written here had its effect, and no longer has by intention."""
        self.__dict__["_left"] = set(self._origins)
        for child in self._children().values():
            child._leave()

    def _join(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else str(name)

    def _update(self, params: Mapping[str, Any], known: Iterable[Problem] = ()) -> None:
        """Makes all changes; or none, and raises what is wrong, `known` problems included."""
        problems = list(known)
        changes: list[Change] = []
        self._plan(params, PYTHON, problems, changes)
        if problems:
            raise ConfigError(problems)
        commit(changes)

    def _plan(
        self,
        params: Any,
        origin: Origin,
        problems: list[Problem],
        changes: list[Change],
    ) -> None:
        """Checks `params` against this config; collects what is wrong and what to change."""
        if not isinstance(params, Mapping):
            message = f"expected a mapping, got {describe(params)}"
            if params is None:
                message += f"; leave it out, or write {self._NOTHING}"
            else:
                message += self._section_to_write(params)
            problems.append(Problem("type", self._path, message, _known(origin)))
            return
        if self._locked and params:
            names = ", ".join(self._join(str(name)) for name in params)
            message = f"the config is locked, {names} cannot be set"
            problems.append(Problem("locked", self._path, message, _known(origin)))
            return
        params = self._expanded(params)
        origins = getattr(params, "origins", {})
        for name, value in params.items():
            self._plan_value(name, value, origins.get(name, origin), problems, changes)

    def _plan_value(
        self,
        name: Any,
        value: Any,
        origin: Origin,
        problems: list[Problem],
        changes: list[Change],
    ) -> None:
        path = self._join(name)
        spec = self._find_spec(name) if isinstance(name, str) else None
        if spec is None:
            message = self._unknown(name, _single_path(value))
            problems.append(Problem("unknown-key", path, message, _known(origin)))
            return
        if isinstance(value, Elements) and not isinstance(self.__dict__.get(name), list | tuple):
            message = f"is no list that has elements, {path}[{next(iter(value))}] cannot be set"
            problems.append(Problem("type", path, message, _known(origin)))
        elif spec.config_class is None:
            self._plan_plain(name, spec, value, origin, problems, changes)
        else:
            self._plan_section(name, spec, value, origin, problems, changes)

    def _plan_plain(
        self,
        name: str,
        spec: FieldSpec,
        value: Any,
        origin: Origin,
        problems: list[Problem],
        changes: list[Change],
    ) -> None:
        path, found = self._join(name), []
        if isinstance(value, Elements):
            value = _with_elements(self.__dict__[name], value, path, found)
        if not found:
            value, found = check_value(spec.annotation, value, path)
            found = found or self._check_field(name, value)
        if self._is_unset(name, value):
            value, found = spec.default(), []
            # Where a required value was left open is worth telling.
            origin = origin if value is REQUIRED else DEFAULT
        elif value is None and found:
            default = describe(spec.default())
            found = [found[0]._replace(message=f"{found[0].message}; the default is {default}")]
        # A config inside of a list knows better where its values were written.
        place = _known(origin)
        problems += [problem._replace(origin=problem.origin or place) for problem in found]
        if not found:
            changes.append(Change(self, name, value, origin))

    def _is_unset(self, name: str, value: Any) -> bool:
        """Whether `value` is a null that says that the field `name` is not set."""
        spec = self._find_spec(name)
        if value is not None or spec is None or spec.config_class is not None:
            return False
        return bool(check_value(spec.annotation, None, name)[1]) and spec.takes_null()

    def _plan_section(
        self,
        name: str,
        spec: FieldSpec,
        value: Any,
        origin: Origin,
        problems: list[Problem],
        changes: list[Change],
    ) -> None:
        path = self._join(name)
        if value is None and spec.optional:
            changes.append(Change(self, name, None, origin))
            return
        child = self._child(name, spec)
        if isinstance(value, Config):
            expected = type(child) if child is not None else spec.config_class
            if not isinstance(value, spec.config_class):
                message = f"expected {expected.__name__}, got {type(value).__name__}"
                problems.append(Problem("type", path, message, _known(origin)))
                return
            # A copy, so that no two configs share a part that one of them locks or moves.
            value = copy.deepcopy(value)
            value._set_locked(False)
            changes.append(Change(self, name, value, origin))
            return
        if child is None:
            child = spec.config_class()
            child._move(path)
            changes.append(Change(self, name, child, origin))
        child._plan(value, origin, problems, changes)

    def _expanded(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """A hook for a value that stands for several: returns `params` with all of them.

        It is called before anything is checked, so it leaves what is wrong as it is.
        """
        return params

    def _section_to_write(self, value: Any) -> str:
        """A hook for the message about a value where a section is expected: what to write."""
        if value is True:
            return "; write {} for the defaults"
        spec = self._find_spec(self._MAIN)
        if spec is None or check_value(spec.annotation, value, "")[1]:
            return ""
        return f"; write {{{self._MAIN}: {value}}}"

    def _child(self, name: str, spec: FieldSpec) -> "Config | None":
        del spec
        return self.__dict__[name]

    def _check_field(self, name: str, value: Any) -> list[Problem]:
        """A hook for checks of one value that its type cannot express."""
        del name, value
        return []

    def _unknown(self, name: Any, rest: str = "") -> str:
        """Returns what is wrong with the key `name`; `rest` is the path that was written below."""
        below = " or ".join(f"'{place}{rest}'" for place in self._places_below(name))
        if below:
            return f"unknown key; did you mean {below}?"
        names = self.field_names()
        if isinstance(name, str) and name.split(".")[0] in names:
            first, *others = name.split(".")
            nested = "".join(f"{{{part}: " for part in others) + "..." + "}" * len(others)
            return f"unknown key; a key has no dots, write `{first}: {nested}`"
        return "unknown key" + (did_you_mean(name, names) or f"; the keys are {', '.join(names)}")

    def _places_below(self, name: Any) -> list[str]:
        """Returns the paths, from the root, of the highest fields below that are called `name`."""
        level: list[Config] = [self]
        while level:
            level = [child for config in level for child in config.selected()]
            places = [config._join(name) for config in level if name in config.field_names()]
            if places:
                return places[:3]
        return []

    # ---- checking ------------------------------------------------------------------------------

    _told: ClassVar[frozenset[str]] = frozenset()

    def _tell(self, doubts: Sequence[Problem]) -> None:
        """Remembers the warnings that were issued, here and below, for what is made of this."""
        if not doubts:
            return
        self.__dict__["_told"] = self._told | {str(doubt) for doubt in doubts}
        for child in self._children().values():
            child._tell(doubts)

    def validate(self) -> list[Problem]:
        """Checks what concerns several fields, and that every required value is set.

        Returns:
            What is likely a mistake and yet works; each is issued as a `ConfigWarning` too.

        Raises:
            ConfigError: All that is wrong at once.
        """
        problems, doubts = self.problems()
        if problems:
            raise ConfigError(problems)
        for doubt in doubts:
            warn(doubt)
        self._tell(doubts)
        return doubts

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
            for _, config in _configs_in(value):
                found = config.problems()
                problems += found[0]
                doubts += found[1]
        if not incomplete:
            problems += [self._problem("conflict", name, text) for name, text in self.check() or ()]
        return problems, doubts

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields the field and the message of each contradiction between this config's values.

        Subclasses override it. It runs when every required value of the config itself is set, and
        every number of steps is a number.
        """
        return iter(())

    def _problem(self, code: str, name: str, message: str) -> Problem:
        return Problem(code, self._join(name), message, _known(self._origin_near(name)))

    def _origin_near(self, name: str) -> Origin:
        """Where `name` was written, or else any other value of this config."""
        return self._origins.get(name) or next(iter(self._origins.values()), DEFAULT)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # Lets configs stand inside lists and mappings, where pydantic walks the container.
        from pydantic_core import core_schema

        def decode(value: Any) -> Config:
            return copy.deepcopy(value) if isinstance(value, cls) else cls(value)

        return core_schema.no_info_plain_validator_function(decode)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError([Problem("syntax", "", f"duplicate key {twice!r}")])
    return result


def _configs_in(value: Any) -> Iterator[tuple[str, Config]]:
    """Yields each config in a field's value, with its place in it: "", "[0]", ".key"."""
    if isinstance(value, Config):
        yield "", value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from ((f"[{index}]{place}", config) for place, config in _configs_in(item))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from ((f".{key}{place}", config) for place, config in _configs_in(item))


def _known(origin: Origin) -> Origin | None:
    """Python code needs no mention: its traceback shows it."""
    return None if origin in (PYTHON, DEFAULT) else origin


def _export(value: Any) -> Any:
    if isinstance(value, Config):
        return value.as_dict()
    if isinstance(value, list | tuple):
        return [_export(item) for item in value]
    if isinstance(value, dict):
        return {key: _export(item) for key, item in value.items()}
    return str(value) if isinstance(value, Duration) else value


def _single_path(value: Any) -> str:
    """Returns the path that leads to the one value in `value`, as an override writes it."""
    path = ""
    while isinstance(value, SourcedDict) and len(value) == 1:
        name, value = next(iter(value.items()))
        path += f"[{name}]" if isinstance(name, int) else f".{name}"
    return path


def commit(changes: list[Change]) -> None:
    """Makes the planned changes, those of one layer."""
    for config, name, value, _ in changes:
        # What an earlier layer wrote under the type that it had selected is no mistake.
        if name == "type" and isinstance(config, OneOfConfig) and config.type not in (None, value):
            config.get()._leave()
    for config, name, value, origin in changes:
        for place, child in _configs_in(value):
            child._move(config._join(name + place))
        config.__dict__[name] = value
        config._origins[name] = origin
        if origin is DEFAULT:  # as if it had never been set
            del config._origins[name]
        config.__dict__.get("_left", set()).discard(name)


def _with_elements(values: Any, elements: Elements, path: str, problems: list[Problem]) -> list:
    """Returns the list `values` with some of its elements changed, `elements` by their index."""
    result = list(values)
    for index, value in elements.items():
        origin, place = elements.origins[index], f"{path}[{index}]"
        if index >= len(result):
            message = f"there is no such element: {_counted(len(result), path)}"
            problems.append(Problem("value", place, message, origin))
        elif isinstance(value, Elements) and isinstance(result[index], list | tuple):
            result[index] = _with_elements(result[index], value, place, problems)
        elif isinstance(result[index], Config) and not isinstance(value, Config):
            result[index] = copy.deepcopy(result[index])
            changes: list[Change] = []
            result[index]._plan(value, origin, problems, changes)
            commit(changes)
        else:
            result[index] = value
    return result


def _counted(count: int, path: str) -> str:
    if count == 0:
        return f"the list is empty; write `{path}=[...]`"
    return f"the list has {count}, 0 to {count - 1}" if count > 1 else "the list has one, 0"


@config_dataclass
class OneOfConfig(Config):
    """A config of which `type` selects one branch.

    The branches are the fields of the class, and the entries of `registry` if it has one, so that
    what is registered later is a branch too. Switching `type` leaves the values of every branch as
    they are; `get()`, `as_dict()` and comparison see the selected branch only. A value that is
    written under a branch that its layer does not select is a warning; one whose branch was
    selected, until a later layer changed the type, is none.

    Attributes:
        type: The name of the selected branch, or None for none.
    """

    _NOTHING: ClassVar[str] = "{type: null} for none"
    registry: ClassVar[Any] = None  # a Registry, which imports this module

    type: str | None = None

    @classmethod
    def branches(cls) -> list[str]:
        """Returns the names that `type` may have."""
        declared = [name for name in _declared_specs(cls) if name != "type"]
        registered = [] if cls.registry is None else list(cls.registry)
        return declared + [name for name in registered if name not in declared]

    @classmethod
    def field_names(cls) -> list[str]:
        """Returns `type` and the names of the branches."""
        return ["type", *cls.branches()]

    @classmethod
    def _find_spec(cls, name: str) -> FieldSpec | None:
        spec = _declared_specs(cls).get(name)
        if spec is None and cls.registry is not None and name in cls.registry:
            config_class = cls.registry.config_class(name)
            return FieldSpec(config_class, config_class, False, None)
        return spec

    def get(self) -> Any:
        """Returns the selected branch, or None if there is none."""
        return None if self.type is None else getattr(self, self.type)

    def __getattr__(self, name: str) -> Any:
        # Only reached for what is not there yet: branches of the registry are made when asked for.
        spec = None if name.startswith("_") else self._find_spec(name)
        if spec is None:
            near = "" if name.startswith("_") else did_you_mean(name, self.field_names())
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{near}")
        return self._child(name, spec)

    def _plan(
        self, params: Any, origin: Origin, problems: list[Problem], changes: list[Change]
    ) -> None:
        """Checks as every config does; the section of an unknown type is no second error."""
        found: list[Problem] = []
        super()._plan(params, origin, found, changes)
        place = self._join("type")
        if any(problem.path == place for problem in found):
            section = self._join(str(params["type"]))
            found = [p for p in found if p.path == place or p.path != section]
        problems += found

    def _child(self, name: str, spec: FieldSpec) -> Config | None:
        if name not in self.__dict__:
            branch = spec.default()
            branch._move(self._join(name))
            branch._set_locked(self._locked)
            self.__dict__[name] = branch
        return self.__dict__[name]

    def _items(self) -> Iterator[tuple[str, Any]]:
        yield "type", self.type
        if self.type is not None:
            yield self.type, self.get()

    def _defaults(self) -> dict[str, Any]:
        names = ("type", self.type) if self.type else ("type",)
        return {name: self._find_spec(name).default() for name in names}

    def _check_field(self, name: str, value: Any) -> list[Problem]:
        if name != "type" or value is None or value in self.branches():
            return []
        return [Problem("value", self._join("type"), self._unknown_branch(value))]

    def _unknown_branch(self, name: Any) -> str:
        unavailable = getattr(self.registry, "unavailable", {})
        if name in unavailable:
            return unavailable[name]
        names = self.branches()
        near = did_you_mean(name, names) or f"; the types are {', '.join(names)}"
        return f"unknown type {name!r}{near}"

    def _section_to_write(self, value: Any) -> str:
        if not isinstance(value, str):
            return ""
        if value in self.branches():
            return f"; write {{type: {value}}}"
        return f"; write {{type: ...}}{did_you_mean(value, self.branches())}"

    def _unknown(self, name: Any, rest: str = "") -> str:
        unavailable = getattr(self.registry, "unavailable", {})
        return unavailable[name] if name in unavailable else super()._unknown(name, rest)

    def untyped_branches(self) -> list[str]:
        """Returns the branches that were given values, where `type` was not given at all.

        Only a oneof with a registry has any: where the branches are fields of the class, their
        defaults may be values of the class' own.
        """
        if self.registry is None or self.type is not None or "type" in self._origins:
            return []
        return [name for name, branch in self._children().items() if branch._written()]

    def _untyped(self, names: list[str]) -> Problem:
        fields = [f"`{name}.{field}`" for name in names for field in self.__dict__[name]._origins]
        types = " or ".join(f"`type: {name}`" for name in names)
        message = f"a type is required for {', '.join(fields)}, none was given; write {types}"
        origin = _known(self.__dict__[names[0]]._origin_near(""))
        return Problem("missing", self._join("type"), message, origin)

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings of the selected branch, and warns of the others."""
        problems, doubts = super().problems()
        untyped = self.untyped_branches()
        if untyped:
            return [*problems, self._untyped(untyped)], doubts
        for name, branch in self._children().items():
            written = next(branch._written_at(), None)
            if name == self.type or written is None:
                continue
            message = f"is set, but `type` selects {self.type!r}"
            doubts.append(Problem("unselected", self._join(name), message, _known(written)))
        return problems, doubts
