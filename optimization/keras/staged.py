"""How an optimizer is made of stages: their fields are its arguments and its attributes."""

import inspect
import textwrap
from typing import Any, ClassVar, TypeVar

from optimization.configs import printing
from optimization.configs.errors import did_you_mean, wrong_signature
from optimization.keras.rule_optimizer import optimizer_text
from optimization.keras.stages.stage import Stage, fields, in_form

S = TypeVar("S", bound=Stage)


class Staged:
    """Mixin for an optimizer around another one, in `optimizer`: makes and asks its stages.

    Signature and docstring of a subclass are made of the fields of `stage_types`: where it takes
    `**arguments`, and has `{arguments}` in the docstring. The fields, and what stages show
    besides, can be read as attributes; all other attributes are those of `optimizer`.
    """

    stage_types: ClassVar[tuple[type[Stage], ...]] = ()
    __signature__: ClassVar[inspect.Signature]
    _owners: ClassVar[dict[str, type[Stage]]] = {}
    _stages: tuple[Stage, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._owners = {}
        taken = inspect.signature(cls.__init__).parameters
        for owner in cls.stage_types:
            check_stage(owner)
            for name in (*(field.name for field in fields(owner)), *owner.shows):
                if name in cls._owners or name in taken or hasattr(cls, name):
                    raise TypeError(
                        f"{owner.__name__}: there is a {name!r} of {cls.__name__} already"
                    )
                cls._owners[name] = owner
        cls.__signature__ = _signature(cls)
        if cls.__doc__:
            cls.__doc__ = cls.__doc__.replace("{arguments}", _documentation(cls))

    @classmethod
    def _made_stages(cls, arguments: dict[str, Any]) -> tuple[Stage, ...]:
        """Returns the stages with these arguments, each of which must be a field of one."""
        known = [field.name for owner in cls.stage_types for field in fields(owner)]
        for name in arguments:
            if name not in known:
                near = did_you_mean(name, known)
                raise TypeError(f"{cls.__name__}() has no argument {name!r}{near}")
        return tuple(
            owner(**{f.name: arguments[f.name] for f in fields(owner) if f.name in arguments})
            for owner in cls.stage_types
        )

    def _attach(self, stages: tuple[Stage, ...]) -> None:
        self._stages = stages
        for name in self._owners:
            self.__dict__.pop(name, None)  # Keras' own constructor has set some
        for stage in stages:
            stage.attach(self)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a step, in the order in which they act."""
        return self._stages

    def stage(self, cls: type[S]) -> S:
        """Returns the stage of a class, or raises a `LookupError`."""
        for stage in self._stages:
            if isinstance(stage, cls):
                return stage
        raise LookupError(f"{type(self).__name__} has no stage {cls.__name__}.")

    # Attributes

    def __getattr__(self, name: str) -> Any:
        # Private names are Keras' own bookkeeping, which probes for them.
        if name.startswith("_") or "optimizer" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        owner = self._owners.get(name)
        return getattr(self.__dict__["optimizer"] if owner is None else self.stage(owner), name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if name in self._owners and self._stages:
            self.stage(self._owners[name]).set(name, value)
        elif not own and hasattr(self.__dict__.get("optimizer"), name):
            setattr(self.optimizer, name, value)
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        # Keras' saving walks `dir` and would save the inner optimizer a second time, by position.
        return [name for name in (*super().__dir__(), *self._owners) if name != "optimizer"]

    def __repr__(self) -> str:
        values = {}
        for stage in self.stages:
            texts = {f.name: in_form(f, "text", getattr(stage, f.name)) for f in fields(stage)}
            values.update(printing.differing(stage, {n: text for n, text in texts.items() if text}))
        return printing.call(type(self).__name__, optimizer_text(self.optimizer), **values)


def check_stage(owner: Any) -> None:
    """Raises a `TypeError` for what is no stage, or one that lacks a part."""
    if not isinstance(owner, type) or not issubclass(owner, Stage):
        raise TypeError(
            f"`stage_types` must hold classes that derive from Stage, got {owner!r:.60}"
        )
    name, call = owner.__name__, owner.__call__
    if call is Stage.__call__:
        raise TypeError(f"{name} has no part in a step: define `__call__(self, batch, rest)`")
    wrong = wrong_signature(f"`__call__` of {name}", call, "self, batch, rest")
    if wrong:
        raise TypeError(wrong)
    for field in fields(owner):
        if "doc" not in field.metadata:
            raise TypeError(
                f"the field `{field.name}` of {name} needs a default and a text: write "
                f"`{field.name}: ... = argument(default, doc)`"
            )


def _signature(cls: Any) -> inspect.Signature:
    """Returns the signature of a class, with the fields of its stages in place of `**arguments`."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    own = [each for each in parameters if each.name != "self"]
    named = [each for each in own if each.kind is not each.VAR_KEYWORD]
    kind = inspect.Parameter.KEYWORD_ONLY
    if named != own:
        named += [
            inspect.Parameter(f.name, kind, default=f.default, annotation=f.type)
            for owner in cls.stage_types
            for f in fields(owner)
        ]
    return inspect.Signature(named)


def _documentation(cls: Any) -> str:
    texts = [f"{f.name}: {f.metadata['doc']}" for owner in cls.stage_types for f in fields(owner)]
    filled = [textwrap.fill(text, width=92, subsequent_indent=" " * 4) for text in texts]
    return textwrap.indent("\n".join(filled), " " * 8).lstrip()
