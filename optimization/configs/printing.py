"""Prints objects in one line: what differs from their defaults, and no addresses."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from optimization.configs.base import Config
from optimization.configs.oneof import OneOfConfig

_LONGEST = 300
_LONGEST_VALUE = 100


class Text(str):
    """A text that is shown as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def call(name: str, /, *args: Any, **kwargs: Any) -> str:
    """Returns `name(arg, key=value)`, at most 300 characters of it."""
    parts = [_value(arg) for arg in args] + [f"{k}={_value(v)}" for k, v in kwargs.items()]
    text = f"{name}({', '.join(parts)})"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]}...)"


def by_arguments(self: Any) -> str:
    """Returns the class and the arguments that are not their defaults: for use as a `__repr__`.

    Attributes have the names of the arguments; an argument without an attribute is left out.
    """
    return call(type(self).__name__, **differing(self, vars(self)))


@functools.cache
def defaults(cls: type) -> dict[str, Any]:
    """Returns the default of each argument, those of base classes that take `**kwargs` too."""
    usual: dict[str, Any] = {}
    for base in cls.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        for parameter in list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                usual.setdefault(parameter.name, parameter.default)
    return usual


def differing(instance: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of `values` that are no defaults of the constructors of an object's classes."""
    cls: type = type(instance)
    usual = defaults(cls)
    return {k: v for k, v in values.items() if k in usual and _differ(v, usual[k])}


def sections(config: Config) -> dict[str, Any]:
    """Returns the sections of a config that differ from the defaults, in few words."""
    values: dict[str, Any] = {}
    for name, value in config._changed():
        if isinstance(value, Config):
            values[name] = section(value)
        elif isinstance(value, Mapping):
            values[name] = {key: section(item) for key, item in value.items()}
        else:
            values[name] = [getattr(item, "label", item) for item in value]
    return values


def section(config: Config | None) -> Text:
    """Returns a section as `sgd(momentum=0.9)`: its type and what differs from the defaults."""
    if not isinstance(config, OneOfConfig):
        return Text(repr(config))
    return Text(call(config.type, **dict(config.get()._changed())) if config.type else "none")


def function(value: Any) -> Text:
    """Returns a callable as what it says of itself, or its name; never an address."""
    text = repr(value)
    if " at 0x" not in text:
        return Text(text)
    return Text(getattr(value, "__name__", None) or f"{type(value).__name__}(...)")


def _differ(value: Any, usual: Any) -> bool:
    try:
        return bool(value != usual)
    except Exception:  # an array, for example
        return True


def _value(value: Any) -> str:
    value = getattr(value, "plain", value)  # a number that follows a schedule for the moment
    text = repr(function(value) if callable(value) else value)
    is_call = isinstance(value, Text | Config) or callable(value) or text.endswith(")")
    longest = _LONGEST if is_call else _LONGEST_VALUE
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
