"""One JSON Schema (2020-12) of the files that this package reads, made from the config classes.

It holds what a file shows by itself: names, types, ranges, defaults, which section belongs to a
`type`. What concerns several values at once, `validate` checks. Only keywords are used that editors
know, most of which read draft 7: `#/$defs` is a pointer to them, `if` and `then` they have.
"""

from typing import Any

from optimization.configs.base import plain
from optimization.configs.documentation import description, field_doc, first_sentence
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.float32 import Float32Config
from optimization.configs.json_types import Json, json_type, nullable
from optimization.configs.oneof import OneOfConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.sweep_config import SweepConfig
from optimization.configs.task_config import TaskConfig
from optimization.configs.tree import FieldSpec, Node, declared_specs
from optimization.configs.types import REQUIRED
from optimization.rules.base import BaseOptimizerConfig
from optimization.rules.modifiers import ModifierFields
from optimization.schedules.sequence import PhaseConfig

_TYPED: Json = {"required": ["type"], "properties": {"type": {"not": {"type": "null"}}}}
EXPERIMENT_KEYS = ("trainer", "task", "runtime")
"""A file that has one of these is that of an experiment."""


def schema(task: type[TaskConfig] | None = None) -> Json:
    """Returns the schema of the files of experiments, optimization sections and sweeps.

    Which of the three a file is, its keys say. A section of optimization must be complete; in the
    file of an experiment values may be missing, which the registered experiment has.

    Args:
        task: The config class of the experiment's task; None leaves the section `task` open but
            for what every task has.
    """
    made = _Definitions(task)
    experiment, section, sweep = map(
        made.section, (ExperimentConfig, OptimizationConfig, SweepConfig)
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:optimizer-factory:schema",
        "title": "Optimizer Factory",
        "description": "The file of an experiment, an optimization section, or a sweep.",
        "type": "object",
        "if": {"anyOf": [{"required": [key]} for key in EXPERIMENT_KEYS]},
        "then": experiment,
        "else": {
            "if": {"required": ["parameters"]},
            "then": {"allOf": [sweep, made.complete(SweepConfig)]},
            "else": {"allOf": [section, made.complete(OptimizationConfig)]},
        },
        "$defs": dict(sorted(made.defs.items())),
    }


class _Definitions:
    """Makes the definitions of config classes, each once."""

    def __init__(self, task: type[TaskConfig] | None):
        self.defs: dict[str, Json] = {}
        self._names: dict[type, str] = {}
        self._task = task

    def section(self, cls: type[Node]) -> Json:
        """Returns a reference to the definition of a config class."""
        if cls is TaskConfig and self._task is not None:
            cls = self._task
        if cls not in self._names:
            name = self._names[cls] = self._free(cls.__name__)
            self.defs[name] = {}  # so that a section may hold sections of its own kind
            if issubclass(cls, OneOfConfig):
                self.defs[name] = self._one_of(cls)
            else:
                self.defs[name] = self._section(cls)
        return {"$ref": f"#/$defs/{self._names[cls]}"}

    def complete(self, cls: type[Node]) -> Json:
        """Returns what a section of a class must have besides, {} for nothing."""
        if cls is PhaseConfig:  # may have its first rate from the phase before
            return _TYPED
        if issubclass(cls, OneOfConfig):
            return self._complete_one_of(cls)
        specs = declared_specs(cls)
        required = [name for name, spec in specs.items() if spec.default() is REQUIRED]
        found = {name: self._complete_value(spec.annotation) for name, spec in specs.items()}
        found |= {name: {"not": {"type": "null"}} for name in required}
        found = {name: inner for name, inner in found.items() if inner}
        rules: Json = {"required": required} if required else {}
        rules |= {"properties": found} if found else {}
        if cls is OptimizationConfig:
            rules["allOf"] = _types_of_all()
        return rules

    def _free(self, name: str) -> str:
        taken = set(self._names.values())
        names = (name, *(f"{name}{number}" for number in range(2, len(taken) + 3)))
        return next(each for each in names if each not in taken)

    def _section(self, cls: type[Node]) -> Json:
        fields = {name: self._field(cls, name) for name in declared_specs(cls)}
        # What a task of one's own has is not known.
        is_open = self._task is None and cls.__name__ in ("TaskConfig", "DataConfig")
        return {
            "description": description(cls).partition("\n\n")[0].replace("\n", " "),
            "type": "object",
            "properties": fields,
            "additionalProperties": is_open,
        }

    def _one_of(self, cls: type[OneOfConfig]) -> Json:
        branches = cls.branches()
        specs = {name: cls._spec_of(name) for name in branches}
        kinds = [first_sentence(spec.config_class) for spec in specs.values()]
        chosen: Json = {"enum": [*branches, None], "enumDescriptions": [*kinds, "none"]}
        meaning = field_doc(cls, "type").meaning.partition(" The types are")[0]
        own_names = cls._OWN
        fields: Json = {name: self._field(cls, name) for name in own_names if name != "type"}
        fields |= {"type": {"description": meaning, **chosen, "default": None}}
        fields |= {name: self._value(spec) for name, spec in specs.items()}
        own = [_chosen(name, {"propertyNames": {"enum": [*own_names, name]}}) for name in branches]
        return {
            "description": description(cls).partition("\n\n")[0].replace("\n", " "),
            "type": "object",
            "properties": fields,
            "additionalProperties": False,
            "allOf": [*own, _chosen(None, {"propertyNames": {"enum": [*own_names]}})],
        }

    def _field(self, cls: type[Node], name: str) -> Json:
        """Returns the schema of a field; a field that many optimizers have is defined once."""
        made = self._described(cls, name)
        if cls is not ModifierFields and issubclass(cls, BaseOptimizerConfig):
            shared = declared_specs(ModifierFields)
            if name in shared and made == self._described(ModifierFields, name):
                self.defs.setdefault(f"optimizer.{name}", made)
                return {"$ref": f"#/$defs/optimizer.{name}"}
        return made

    def _described(self, cls: type[Node], name: str) -> Json:
        spec, doc = cls._spec_of(name), field_doc(cls, name)
        made = self._value(spec, issubclass(cls, Float32Config))
        if cls()._is_unset(name, None):
            made = nullable(made)
        unit = f" In {doc.unit}." if doc.unit else ""
        default = spec.default()
        given = (
            {} if default is REQUIRED or isinstance(default, Node) else {"default": plain(default)}
        )
        return {"description": f"{doc.meaning}{unit}".strip(), **made, **given}

    def _value(self, spec: FieldSpec, in_float32: bool = False) -> Json:
        return json_type(spec.annotation, self.section, in_float32)

    def _complete_one_of(self, cls: type[OneOfConfig]) -> Json:
        rules = []
        for name in cls.branches():
            config_class = cls._spec_of(name).config_class
            inner = self.complete(config_class) if config_class is not None else {}
            if inner:
                needed = {"required": [name]} if "required" in inner else {}
                rules.append(_chosen(name, {**needed, "properties": {name: inner}}))
        # Without a type no section may have values.
        untyped = {"additionalProperties": {"maxProperties": 0}}
        typed: Json = {"then": {"allOf": rules}} if rules else {}
        return {"if": {"required": ["type"]}, **typed, "else": untyped}

    def _complete_value(self, annotation: Any) -> Json:
        """Returns what a section must have, or those in a list or mapping of sections."""
        found: list[type[Node]] = []

        def section(cls: type[Node]) -> Json:
            found.append(cls)
            return {}

        kind = json_type(annotation, section)
        if not found or not (inner := self.complete(found[0])):
            return {}
        if kind.get("type") == "array":
            return {"items": inner}
        if kind.get("type") == "object":
            return {"additionalProperties": inner}
        return inner


def _chosen(name: str | None, then: Json) -> Json:
    """Returns what holds where `type` is given and is `name`."""
    return {"if": {"required": ["type"], "properties": {"type": {"const": name}}}, "then": then}


def _types_of_all() -> list[Json]:
    """Returns that there must be an optimizer, and a learning rate but where that has its own."""
    optimizers: Any = OptimizationConfig._spec_of("optimizer").config_class
    own = [
        name
        for name, entry in optimizers.registry.entries()
        if entry.config_class.own_learning_rate is not BaseOptimizerConfig.own_learning_rate
    ]
    has_own = {
        "required": ["optimizer"],
        "properties": {"optimizer": {"required": ["type"], "properties": {"type": {"enum": own}}}},
    }
    rate = {"required": ["learning_rate"], "properties": {"learning_rate": _TYPED}}
    optimizer = {"required": ["optimizer"], "properties": {"optimizer": _TYPED}}
    return [optimizer, {"if": has_own, "else": rate}]
