"""How the fields of a config are declared, so that type checkers know what may be written.

A value is checked when it is set, and more may be written than is read: a section as a mapping, a
length as "10%". `Field` says both.
"""

import dataclasses
import threading
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

ReadT = TypeVar("ReadT")
WrittenT = TypeVar("WrittenT")
ClassT = TypeVar("ClassT")

if typing.TYPE_CHECKING:

    class Field(Generic[ReadT, WrittenT]):
        """A field that reads as `ReadT`, and to which `WrittenT` may be written."""

        def __get__(self, instance: object, owner: type) -> ReadT: ...
        def __set__(self, instance: object, value: WrittenT) -> None: ...

    Section = Field[ReadT, ReadT | Mapping[str, Any]]
    """A config, which may be written as a mapping."""
    Sections = Field[tuple[ReadT, ...], Sequence[ReadT | Mapping[str, Any]]]
    """A list of configs, each of which may be written as a mapping."""
    SectionMap = Field[dict[str, ReadT], Mapping[str, ReadT | Mapping[str, Any]]]
    """Configs by name, each of which may be written as a mapping."""
    Steps = Field[ReadT, ReadT | str]
    """A number of steps, which may be written as "5 epochs", "10%", "1B tokens", "remaining"."""

    def field(*, default: Any = ..., default_factory: Any = ..., metadata: Any = ...) -> Any:
        """Declares the default of a field, as `dataclasses.field` does."""

else:
    field = dataclasses.field

    class Field:
        """A field that reads as its first argument: the type by which values are checked."""

        def __class_getitem__(cls, types):
            return types[0] if isinstance(types, tuple) else types

    Section = Steps = Field
    Sections = tuple[ReadT, ...]
    SectionMap = dict[str, ReadT]


class _NotMade:
    """The `__dataclass_fields__` of a class that is made a dataclass once it is asked for them."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return vars(config_dataclass(owner))["__dataclass_fields__"]


_LOCK = threading.RLock()
NOT_MADE: Any = _NotMade()


def config_dataclass(cls: type[ClassT]) -> type[ClassT]:
    """Makes a `Config` that is none yet a dataclass, as `dataclasses.dataclass` does, but faster.

    A class need not be decorated: this is called when its fields are first asked for.

    That one generates a constructor, a comparison and a representation for each class, which a
    `Config` has; for all of this package they take a sixth of the time of its import.

    Raises:
        TypeError: For a class that was made a dataclass again, which loses defaults.
    """
    members, own = vars(cls), "__dataclass_fields__"
    with _LOCK:  # a second decoration would lose defaults
        if isinstance(members.get(own, NOT_MADE), _NotMade):
            dataclasses.dataclass(init=False, eq=False, repr=False)(cls)
        if "_made" not in members:
            setattr(cls, "_made", members[own])  # noqa: B010  no attribute that checkers know
    if members["_made"] is not members[own]:
        raise TypeError(
            f"{cls.__name__} is made a dataclass twice: write `@dataclasses.dataclass` below the "
            "decorator that registers it, or leave it out"
        )
    return cls
