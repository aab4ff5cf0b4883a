"""`OneOfConfig`: a config of which `type` selects one branch."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from optimization.configs.base import Config
from optimization.configs.errors import Problem, did_you_mean, known, shortened
from optimization.configs.tree import FieldSpec, declared_specs


class OneOfConfig(Config):
    """A config of which `type` selects one branch.

    The branches are the fields of the class, and the entries of `registry` if it has one, so that
    what is registered later is a branch too. Switching `type` leaves the values of every branch as
    they are; `get()`, `as_dict()` and comparison see the selected branch only. A value that is
    written under a branch that its layer does not select is a warning; one whose branch was
    selected, until a later layer changed the type, is none.

    >>> from optimization import OptimizerConfig
    >>> config = OptimizerConfig(type="sgd", sgd={"momentum": 0.9})
    >>> config.get()
    SGDConfig(momentum=0.9)
    >>> config.type = "adam"
    >>> config.get(), config.sgd
    (AdamConfig(), SGDConfig(momentum=0.9))

    Attributes:
        type: The name of the selected branch, or None for none.
    """

    _NOTHING: ClassVar[str] = "{type: null} for none"
    _OWN: ClassVar[tuple[str, ...]] = ("type",)  # the fields that are no branches
    registry: ClassVar[Any] = None  # a Registry, which imports this module

    type: str | None = None

    @classmethod
    def branches(cls) -> list[str]:
        """Returns the names that `type` may have."""
        declared = [name for name in declared_specs(cls) if name not in cls._OWN]
        registered = [] if cls.registry is None else list(cls.registry)
        return declared + [name for name in registered if name not in declared]

    @classmethod
    def classes(cls) -> list[Any]:
        """Returns the classes of the branches."""
        specs = [cls._find_spec(name) for name in cls.branches()]
        return [spec.config_class for spec in specs if spec and spec.config_class]

    @classmethod
    def field_names(cls) -> list[str]:
        return [*cls._OWN, *cls.branches()]

    @classmethod
    def _find_spec(cls, name: str) -> FieldSpec | None:
        spec = declared_specs(cls).get(name)
        if spec is None and cls.registry is not None and name in cls.registry:
            config_class = cls.registry.config_class(name)
            return FieldSpec(config_class, config_class, False, config_class)
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
        branch = spec.default()
        branch._move(self._join(name))
        branch._set_locked(self._locked)
        self.__dict__[name] = branch
        return branch

    def _relevant(self, params: Mapping[str, Any], problems: list[Problem]) -> list[Problem]:
        """Leaves out that the section of an unknown type is unknown."""
        place = self._join("type")
        if all(problem.path != place for problem in problems):
            return problems
        section = self._join(str(params["type"]))
        return [p for p in problems if p.path == place or p.path != section]

    def _before_change(self, name: str, value: Any) -> None:
        """Leaves what an earlier layer wrote under the type that it selected: no mistake."""
        if name == "type" and self.type not in (None, value):
            self.get()._leave()

    def _items(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, self.__dict__[name]) for name in self._OWN)
        if self.type is not None:
            yield self.type, self.get()

    def _defaults(self) -> dict[str, Any]:
        names = (*self._OWN, self.type) if self.type else self._OWN
        return {name: self._spec_of(name).default() for name in names}

    def _check_field(self, name: str, value: Any) -> list[Problem]:
        names = self.branches()
        if name != "type" or value is None or value in names:
            return []
        near = did_you_mean(value, names) or f"; the types are {', '.join(names)}"
        unavailable = getattr(self.registry, "unavailable", {})
        message = unavailable.get(value, f"unknown type {shortened(repr(value), 100)}{near}")
        return [Problem("value", self._join("type"), message)]

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
        return [name for name, branch in self._made_branches().items() if any(branch._written_at())]

    def _made_branches(self) -> dict[str, Any]:
        """Returns the branches that there are yet, by name."""
        names = set(self.branches())
        return {name: branch for name, branch in self._children().items() if name in names}

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings of the selected branch, and warns of the others."""
        problems, doubts = super().problems()
        untyped = self.untyped_branches()
        if untyped:
            fields = [f"`{n}.{f}`" for n in untyped for f in self.__dict__[n]._origins]
            types = " or ".join(f"`type: {name}`" for name in untyped)
            message = f"a type is required for {', '.join(fields)}, none was given; write {types}"
            origin = known(self.__dict__[untyped[0]]._origin_near(""))
            return [*problems, Problem("missing", self._join("type"), message, origin)], doubts
        for name, branch in self._made_branches().items():
            written = next(branch._written_at(), None)
            if name == self.type or written is None:
                continue
            message = f"is set, but `type` selects {self.type!r}"
            doubts.append(Problem("unselected", self._join(name), message, known(written)))
        return problems, doubts
