"""`Config`: a strict dataclass that is built, layered, locked, exported and validated."""

import copy
import dataclasses
import importlib
import os
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from optimization.configs import yaml_file
from optimization.configs.documentation import document
from optimization.configs.errors import DEFAULT, ConfigError, Origin, Problem, warn
from optimization.configs.fields import NOT_MADE, config_dataclass
from optimization.configs.planning import Plan
from optimization.configs.tree import Node
from optimization.configs.types import REQUIRED, Duration

if typing.TYPE_CHECKING:
    from optimization.configs.difference import Difference


@config_dataclass
class Config(Node):
    """A strict, mutable, lockable dataclass.

    Subclasses are ordinary dataclasses, also without the decorator; each gets the constructor,
    comparison and representation of this class:

    >>> class Point(Config):
    ...     x: float = 0.0
    ...     y: float = REQUIRED
    >>> Point({"x": 1, "y": 2}) == Point(x=1, y=2)
    True
    >>> Point(z=3)
    Traceback (most recent call last):
    optimization.configs.errors.ConfigError: z: unknown key; the keys are x, y

    Args:
        params: A mapping from field name to value, nested for nested configs.
        **kwargs: The same, as keywords; they win over `params`.

    Raises:
        ConfigError: For unknown keys, wrong types and impossible values, all at once.
    """

    if typing.TYPE_CHECKING:  # as which every subclass has `params`
        _params: dataclasses.InitVar["Mapping[str, Any] | Config | None"] = dataclasses.field(
            default=None, kw_only=False
        )

    def __init__(self, params: "Mapping[str, Any] | Config | None" = None, /, **kwargs: Any):
        self._start()
        if isinstance(params, Config):
            if not isinstance(params, type(self)):
                raise TypeError(f"expected {type(self).__name__}, got {type(params).__name__}")
            params = params.as_dict()
        if params is not None:
            self._change(params)
        if kwargs:
            self._change(kwargs)
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
        cls.__dataclass_fields__ = NOT_MADE
        document(cls)

    @classmethod
    def misdeclared(cls) -> Iterator[str]:
        """Yields what keeps the class from being registered as a type that implements itself."""
        return iter(())

    # ---- reading -------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Returns nested plain dicts and lists; values that are required and not set are absent."""
        return {name: plain(value) for name, value in self._items() if value is not REQUIRED}

    def to_dict(self, encode_json: bool = False) -> dict[str, Any]:
        """Returns `as_dict()`; the name under which dataclasses-json asks for it."""
        return self.as_dict()

    @classmethod
    def from_dict(cls, params: Mapping[str, Any], *, infer_missing: bool = False) -> Self:
        """Returns `cls(params)`; the name under which dataclasses-json asks for it."""
        return cls(params)

    def to_json(self, **kwargs: Any) -> str:
        """Returns the config as JSON text; keyword arguments go to `json.dumps`."""
        return _with_json().to_json(self, **kwargs)

    @classmethod
    def from_json(cls, text: str | bytes, **kwargs: Any) -> Self:
        """Builds a config from JSON text; keyword arguments go to `json.loads`.

        Raises:
            ConfigError: For text that is not JSON, and as the constructor does.
        """
        kwargs.setdefault("object_pairs_hook", _unique)
        try:
            return _with_json().from_json.__func__(cls, text, **kwargs)
        except ConfigError:
            raise
        except (ValueError, RecursionError) as error:
            raise ConfigError([Problem("syntax", "", f"not JSON: {error}")]) from None

    def to_yaml(self, path: "str | os.PathLike[str] | None" = None) -> str:
        """Returns the config as YAML text, and writes it to the file `path` if that is given."""
        text = yaml_file.dump(self.as_dict())
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return text

    @classmethod
    def from_yaml(cls, path: "str | os.PathLike[str]") -> Self:
        """Builds a config from the YAML file `path`.

        Raises:
            ConfigError: For a file that cannot be read, and as the constructor does, with lines.
        """
        config = cls()
        config._change(*yaml_file.read_file(path))
        return config

    def origin_of(self, path: str) -> Origin:
        """Returns where the value at a dotted path was written: `file:line`, flag, default.

        Raises:
            AttributeError: If there is no such value.
        """
        *parents, name = path.split(".")
        config: Any = self
        for parent in parents:
            config = getattr(config, parent)
        if not isinstance(config, Config) or config._find_spec(name) is None:
            raise AttributeError(f"{type(self).__name__} has no value at {path!r}")
        return config._origins.get(name, DEFAULT)

    def __eq__(self, other: object) -> bool:
        """Whether both are of one class and export the same values."""
        if not isinstance(other, Config) or type(other) is not type(self):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def diff(self, other: "Config") -> "Difference":
        """Returns what differs in another config of the class, as both train.

        Defaults are filled in, steps are numbers where the length of the training is known, and of
        learning rates it says where the curves are furthest apart. It prints itself, and is false
        where nothing differs.

        Raises:
            TypeError: If `other` is of another class.
        """
        # By name: the module knows the sections, which are made of this class.
        comparing = importlib.import_module("optimization.configs.comparing")
        return comparing.difference(self, other)

    def __repr__(self) -> str:
        """Returns the code that builds the config: the class, and what differs from defaults."""
        fields = ", ".join(f"{name}={value!r}" for name, value in self._changed())
        return f"{type(self).__name__}({fields})"

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the curve of the rate, if there is one, and the values."""
        # By its name: type checkers do not follow a circle of dataclasses.
        return importlib.import_module("optimization.plots.notebook").html_of(self)

    # ---- writing -------------------------------------------------------------------------------

    def override(self, params: Mapping[str, Any]) -> None:
        """Sets the values named in `params`, a nested mapping, and leaves all others as they are.

        A list replaces the list that was there. Only part of a oneof may be given, and branches
        that are not selected may be written to.

        Raises:
            ConfigError: All mistakes at once, in which case nothing was changed.
        """
        self._change(params)

    def replace(self, **kwargs: Any) -> Self:
        """Returns a copy, not locked, with the given values set.

        Raises:
            ConfigError: As `override` does.
        """
        twin = copy.deepcopy(self)
        twin._set_locked(False)
        twin._change(kwargs)
        return twin

    def lock(self) -> None:
        """Makes the config and all that it holds read-only."""
        self._set_locked(True)

    @property
    def locked(self) -> bool:
        """Whether the config is read-only."""
        return self._locked

    if not typing.TYPE_CHECKING:  # for which it would mean that any name may be set

        def __setattr__(self, name: str, value: Any) -> None:
            self._change({name: value})

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} is a field and cannot be deleted")

    def _change(self, params: Mapping[str, Any], known: Iterable[Problem] = ()) -> None:
        """Makes all changes; or none, and raises what is wrong, what is `known` to be included."""
        plan = Plan(known)
        plan.add(self, params)
        if plan.problems:
            raise ConfigError(plan.problems)
        plan.commit()

    # ---- checking ------------------------------------------------------------------------------

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

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # Lets configs stand inside lists and mappings, where pydantic walks the container.
        from pydantic_core import core_schema

        def decode(value: Any) -> Config:
            if value is None:  # of which the constructor makes a config of defaults
                raise ValueError("expected a mapping, got null")
            return copy.deepcopy(value) if isinstance(value, cls) else cls(value)

        return core_schema.no_info_plain_validator_function(decode)


def _with_json() -> Any:
    """Returns the mixin of dataclasses-json, which asks for `to_dict` and `from_dict` alone."""
    from dataclasses_json import DataClassJsonMixin

    return DataClassJsonMixin


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError([Problem("syntax", "", f"duplicate key {twice!r}")])
    return result


def plain(value: Any) -> Any:
    """Returns a value as JSON and YAML can hold it: configs as mappings, tuples as lists."""
    if isinstance(value, Config):
        return value.as_dict()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Duration) else value
