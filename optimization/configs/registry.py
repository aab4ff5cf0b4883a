"""`Registry` holds the types: for each name its config class and its implementation."""

import copy
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optimization import extras
from optimization.configs.base import Config, config_dataclass
from optimization.configs.documentation import document
from optimization.configs.errors import did_you_mean
from optimization.configs.oneof import OneOfConfig
from optimization.configs.types import REQUIRED

REPLACEABLE = {"replaceable": True}
"""Metadata of a base config's field that a class with a parameter of that name has as its own."""

ConfigT = typing.TypeVar("ConfigT", bound=Config)
DecoratedT = typing.TypeVar("DecoratedT")


class Entry(typing.NamedTuple, typing.Generic[ConfigT]):
    """What a registry knows of one type."""

    config_class: type[ConfigT]
    target: Any
    torch: str | None = None


class Registry(Mapping[str, type[Any]], typing.Generic[ConfigT]):
    """Maps the name of a type to its class; `register` adds a type.

    Listing the names, and asking for a config class, imports nothing heavy; the class itself is
    imported when it is looked up.
    """

    def __init__(
        self,
        kind: str,  # for messages: "optimizer", "learning rate", "warmup"
        config_base: type[ConfigT],  # of every config class
        implementation: Callable[[Entry[ConfigT]], type[Any]],  # makes the class
        supplied: tuple[str, ...] = (),  # parameters that are no fields: the factory passes them
        unavailable: Mapping[str, str] | None = None,  # names that are not implemented, and why
        # Makes what the config class of an implementation has beside its fields.
        members: Callable[[Any], Mapping[str, Any]] | None = None,
    ):
        self.kind = kind
        self.config_base = config_base
        self.unavailable = dict(unavailable or {})
        self._implementation = implementation
        self._supplied = supplied
        self._members = members or (lambda decorated: {})
        self._subscribers: list[Callable[[str, Entry[ConfigT]], Any]] = []
        self._entries: dict[str, Entry[ConfigT]] = {}

    def register(
        self, name: str, target: Any = None, torch: str | None = None
    ) -> Callable[[DecoratedT], DecoratedT]:
        """Returns a decorator that registers a type under `name`.

        It decorates either a config, which it makes a dataclass, with `target` naming the
        implementation as "package.module:Class" or being it; or the implementation itself (an
        optimizer class, a schedule class, or the formula of a schedule), from whose signature the
        config is made: annotations are the types, defaults are the defaults, and a parameter
        without default must be given.

        >>> @optimization.register_learning_rate("halving")
        ... def halving(step, *, first: float, half_life: int = 100, xp):
        ...     return first * xp.power(0.5, step / half_life)
        >>> curve(LR_CLS.config_class("halving")(first=0.1), None, [0, 100])
        array([0.1 , 0.05])

        Args:
            name: The type's name.
            target: The implementation of a config dataclass that is decorated.
            torch: "package.module:function" that says how PyTorch has it natively; None if it
                has not.

        Raises:
            ValueError: If `name` is taken or is not an identifier.
            TypeError: If a parameter has neither an annotation nor a default, or what is decorated
                cannot be of this registry.
        """
        if name in self._entries:
            raise ValueError(f"the {self.kind} type {name!r} is registered already")
        if not name.isidentifier() or name == "type" or hasattr(OneOfConfig, name):
            raise ValueError(f"{name!r} cannot name a type: it must be an identifier of its own")

        def decorate(decorated: DecoratedT) -> DecoratedT:
            entry = self._entries[name] = self._entry(name, decorated, target, torch)
            for subscriber in self._subscribers:
                subscriber(name, entry)
            return decorated

        return decorate

    def subscribe(self, subscriber: Callable[[str, Entry[ConfigT]], Any]) -> None:
        """Calls `subscriber` with the name and entry of every type, present and future."""
        for name, entry in self._entries.items():
            subscriber(name, entry)
        self._subscribers.append(subscriber)

    def config_class(self, name: str) -> type[ConfigT]:
        return self.entry(name).config_class

    def entry(self, name: str) -> Entry[ConfigT]:
        """Returns what is registered under `name`; a KeyError where nothing is."""
        if name in self._entries:
            return self._entries[name]
        if name in self.unavailable:
            raise KeyError(self.unavailable[name])
        near = did_you_mean(name, self._entries)
        raise KeyError(f"unknown {self.kind} type {name!r}{near}")

    def entries(self) -> Iterator[tuple[str, Entry[ConfigT]]]:
        yield from self._entries.items()

    def __getitem__(self, name: str) -> type[Any]:
        return self._implementation(self.entry(name))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<registry of {self.kind} types: {', '.join(self._entries)}>"

    def _entry(self, name: str, decorated: Any, target: Any, torch: str | None) -> Entry[ConfigT]:
        if not isinstance(decorated, type) or not issubclass(decorated, Config):
            config_class = self._config_from_signature(name, decorated)
            target = decorated
        elif issubclass(decorated, self.config_base):
            config_class = config_dataclass(decorated)
            self._check_declaration(name, decorated, implements=target is None)
            target = decorated if target is None else target
        else:
            base = self.config_base.__name__
            raise TypeError(f"{decorated.__name__} must derive from {base}")
        document(config_class)
        return Entry(config_class, target, torch)

    def _check_declaration(self, name: str, cls: type[Config], implements: bool) -> None:
        own = cls.__dataclass_fields__
        fields = {field.name for field in dataclasses.fields(cls)}
        bare = sorted(fields & vars(cls).keys() - inspect.get_annotations(cls).keys())
        if bare:
            raise self._refused(
                name, f"`{bare[0]}` is a field and needs its type, `{bare[0]}: ...`"
            )
        for base in cls.__mro__[1:]:
            inherited = getattr(base, "__dataclass_fields__", {})
            for field in own.keys() - inherited.keys() & vars(base).keys():
                kinds = (staticmethod, classmethod, property)
                if callable(vars(base).get(field)) or isinstance(vars(base).get(field), kinds):
                    owner = f"has the name of a method of {base.__name__}"
                    raise self._refused(name, f"its field `{field}` {owner}")
        for why in cls.misdeclared() if implements else ():
            raise self._refused(name, why)

    def _config_from_signature(self, name: str, decorated: Any) -> type[ConfigT]:
        try:
            parameters = inspect.signature(decorated).parameters.values()
        except (TypeError, ValueError):
            raise self._refused(name, f"{decorated!r} has no signature") from None
        members = self._members(decorated)
        is_class = isinstance(decorated, type)
        function = inspect.getattr_static(decorated, "__init__") if is_class else decorated
        hints = typing.get_type_hints(function, include_extras=True)
        inherited = [
            field.name
            for field in dataclasses.fields(self.config_base)
            if not field.metadata.get("replaceable")
        ]
        fields = [
            self._field(name, parameter, hints.get(parameter.name))
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and parameter.name not in (*self._supplied, *inherited)
        ]
        config_class = dataclasses.make_dataclass(
            f"{decorated.__name__}Config",
            fields,
            bases=(self.config_base,),
            namespace={"__doc__": decorated.__doc__, **members},
        )
        # Where pickle finds it. Python 3.12 takes no module from the namespace.
        config_class.__module__ = decorated.__module__
        decorated.registered_config = config_class
        config_class.__qualname__ = f"{decorated.__qualname__}.registered_config"
        return config_class

    def _refused(self, name: str, why: str) -> TypeError:
        return TypeError(f"the {self.kind} {name!r} cannot be registered: {why}")

    def _field(self, name: str, parameter: inspect.Parameter, hint: Any) -> tuple[str, Any, Any]:
        attribute = getattr(self.config_base, parameter.name, None)
        if callable(attribute) or isinstance(attribute, property):
            owner = f"has the name of a method of {self.config_base.__name__}"
            raise self._refused(name, f"its parameter `{parameter.name}` {owner}")
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        if hint is None:
            if default is REQUIRED or default is None:
                raise self._refused(
                    name, f"its parameter `{parameter.name}` needs a type annotation"
                )
            # A bare `power=1` is more often a number than an integer.
            hint = float if type(default) is int else type(default)
        if isinstance(default, list | dict):
            field = dataclasses.field(default_factory=lambda: copy.copy(default))
            return parameter.name, hint, field
        return parameter.name, hint, dataclasses.field(default=default)


def import_target(entry: Entry[Any]) -> type[Any]:
    """Returns the implementation of an entry, importing it if it is given by name."""
    if not isinstance(entry.target, str):
        return entry.target
    module, _, attribute = entry.target.partition(":")
    return getattr(extras.require(module), attribute)
