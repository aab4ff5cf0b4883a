"""`Plan` checks what is written to a config, and then makes the changes that are right.

Every value, whether it comes from a constructor, an attribute assignment, a file or a flag, passes
this door. A type or range is checked here; what concerns several fields, and values that must be
given and are not, is checked by `Config.validate()`, since layers come one after another.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from optimization.configs.errors import DEFAULT, PYTHON, Origin, Problem, describe, known
from optimization.configs.tree import FieldSpec, Node, configs_in
from optimization.configs.types import REQUIRED, check_value
from optimization.configs.yaml_file import Elements, Parts, SourcedDict

_MANY = 100  # mistakes; from then on the nearest names are not looked for


class Change(NamedTuple):
    """An assignment to a field that has not been made yet."""

    config: Node
    name: str
    value: Any
    origin: Origin

    @property
    def path(self) -> str:
        """The place of the field, from the root."""
        return self.config._join(self.name)


class Plan:
    """Collects the changes to a config that are right, and what is wrong with the others."""

    def __init__(self, known: Iterable[Problem] = ()):
        self.problems = list(known)
        self._changes: list[Change] = []

    def add(self, config: Node, params: Any, origin: Origin = PYTHON) -> None:
        """Checks what is written to a config, which is right if it is a mapping.

        `origin` is that of values that do not know by themselves where they were written.
        """
        code, message = "type", ""
        if params is None:
            message = f"expected a mapping, got null; leave it out, or write {config._NOTHING}"
        elif not isinstance(params, Mapping):
            hint = config._section_to_write(params)
            message = f"expected a mapping, got {describe(params)}{hint}"
        elif config._locked and params:
            names = ", ".join(config._join(str(name)) for name in params)
            message = (
                f"the config is locked, {names} cannot be set; `replace` makes a copy that is not"
            )
            code = "locked"
        if message:
            self.problems.append(Problem(code, config._path, message, known(origin)))
            return
        params = config._expanded(params)
        origins = getattr(params, "origins", {})
        before = len(self.problems)
        for name, value in params.items():
            self.set(Change(config, name, value, origins.get(name, origin)))
        self.problems[before:] = config._relevant(params, self.problems[before:])

    def set(self, change: Change) -> None:
        """Checks one assignment as it was written."""
        config, name, value, _ = change
        spec = config._find_spec(name) if isinstance(name, str) else None
        if spec is None:
            # Among very many, none was meant as another one.
            is_few = len(self.problems) < _MANY
            text = config._unknown(name, _single_path(value)) if is_few else "unknown key"
            self._refuse("unknown-key", change, text)
        elif isinstance(value, Elements) and not isinstance(
            config.__dict__.get(name), list | tuple
        ):
            element = f"{change.path}[{next(iter(value))}]"
            message = f"is no list that has elements, {element} cannot be set"
            self._refuse("type", change, message)
        elif spec.config_class is None:
            self._set_plain(change, spec)
        else:
            self._set_section(change, spec, spec.config_class)

    def commit(self) -> None:
        """Makes the changes that are right, those of one layer."""
        for config, name, value, _ in self._changes:
            config._before_change(name, value)
        for config, name, value, origin in self._changes:
            for place, child in configs_in(value):
                child._move(config._join(name + place))
            config.__dict__[name] = value
            config._origins[name] = origin
            if origin is DEFAULT:  # as if it had never been set
                del config._origins[name]
            config._left.discard(name)

    def _refuse(self, code: str, change: Change, message: str) -> None:
        self.problems.append(Problem(code, change.path, message, known(change.origin)))

    def _set_plain(self, change: Change, spec: FieldSpec) -> None:
        config, name, value, origin = change
        found: list[Problem] = []
        if isinstance(value, Elements):
            value, found = _with_elements(config.__dict__[name], value, change.path)
        elif isinstance(value, Parts) and isinstance(config.__dict__[name], Mapping):
            value, found = _with_parts(config.__dict__[name], value, change.path)
        if not found:
            value, found = check_value(spec.annotation, value, change.path)
            found = found or config._check_field(name, value)
        if config._is_unset(name, value):
            value, found = spec.default(), []
            # Where a required value was left open is worth telling.
            origin = origin if value is REQUIRED else DEFAULT
        elif value is None and found:
            default = describe(spec.default())
            found = [found[0]._replace(message=f"{found[0].message}; the default is {default}")]
        # A config inside of a list knows better where its values were written.
        place = known(origin)
        self.problems += [problem._replace(origin=problem.origin or place) for problem in found]
        if not found:
            self._changes.append(Change(config, name, value, origin))

    def _set_section(self, change: Change, spec: FieldSpec, config_class: type[Node]) -> None:
        config, name, value, origin = change
        if value is None and spec.optional:
            self._changes.append(change)
            return
        child = getattr(config, name)
        if isinstance(value, config_class):
            # A copy, so that no two configs share a part that one of them locks or moves.
            value = copy.deepcopy(value)
            value._set_locked(False)
            self._changes.append(change._replace(value=value))
        elif isinstance(value, Node):
            expected = config_class if child is None else type(child)
            message = f"expected {expected.__name__}, got {type(value).__name__}"
            self._refuse("type", change, message)
        else:
            if child is None:
                child = config_class()
                child._move(change.path)
                self._changes.append(change._replace(value=child))
            self.add(child, value, origin)


def _single_path(value: Any) -> str:
    """Returns the path that leads to the one value in `value`, as an override writes it."""
    path = ""
    while isinstance(value, SourcedDict) and len(value) == 1:
        name, value = next(iter(value.items()))
        path += f"[{name}]" if isinstance(name, int) else f".{name}"
    return path


def _with_elements(values: Any, elements: Elements, path: str) -> tuple[list, list[Problem]]:
    """Returns `values`, the list at `path`, with some elements changed, and what is wrong there."""
    result = list(values)
    problems: list[Problem] = []
    for index, value in elements.items():
        origin, place = elements.origins[index], f"{path}[{index}]"
        if index >= len(result):
            message = f"there is no such element: {_counted(len(result), path)}"
            problems.append(Problem("value", place, message, origin))
        else:
            result[index], found = _changed(result[index], value, place, origin)
            problems += found
    return result, problems


def _with_parts(values: Mapping, parts: Parts, path: str) -> tuple[dict, list[Problem]]:
    """Returns `values`, the mapping at `path`, with some changed, and what is wrong there.

    What is null there is taken away.
    """
    result = dict(values)
    problems: list[Problem] = []
    for name, value in parts.items():
        if value is None and name in result:
            del result[name]
            continue
        new, found = _changed(result.get(name), value, f"{path}.{name}", parts.origins[name])
        result[name] = new
        problems += found
    return result, problems


def _changed(old: Any, value: Any, path: str, origin: Origin) -> tuple[Any, list[Problem]]:
    """Returns what an element of a list or a mapping becomes where a value is written to it."""
    if isinstance(value, Elements) and isinstance(old, list | tuple):
        return _with_elements(old, value, path)
    if not isinstance(old, Node) or isinstance(value, Node):
        return value, []
    config = copy.deepcopy(old)
    plan = Plan()
    plan.add(config, value, origin)
    plan.commit()
    return config, plan.problems


def _counted(count: int, path: str) -> str:
    if count == 0:
        return f"the list is empty; write `{path}=[...]`"
    return f"the list has {count}, 0 to {count - 1}" if count > 1 else "the list has one, 0"
