"""`Space`: the parameters of a sweep over an experiment, and all that is wrong with them."""

import graphlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optimization.configs import yaml_file
from optimization.configs.base import Config
from optimization.configs.errors import (
    ConfigError,
    Origin,
    Problem,
    describe,
    did_you_mean,
    nearest_or_all,
)
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.layers import findings, layered
from optimization.configs.oneof import OneOfConfig
from optimization.configs.overrides import put, read_override
from optimization.configs.planning import Plan
from optimization.configs.sweep_config import ParameterConfig, SweepConfig
from optimization.configs.types import REQUIRED
from optimization.configs.yaml_file import SourcedDict

MODE = "train_and_eval"
_SEGMENT = re.compile(r"\w+")

Assignment = dict[int, Any]
"""The values of one trial, by the number of the parameter, in the order in which they are set."""


class Space:
    """The parameters of a sweep over an experiment.

    A parameter counts in a trial where its conditions hold: those of `when`, and that `type`
    selects each branch in which its path is.

    Args:
        config: The sweep. `load_space` reads one, and says all that is wrong with it.
        base: The experiment that it varies, complete.

    Raises:
        ConfigError: For a cycle of conditions.
    """

    def __init__(self, config: SweepConfig, base: ExperimentConfig):
        self.config = config
        self.base = base
        self.parameters = config.parameters
        self._conditions = [_conditions(parameter, base) for parameter in self.parameters]
        self._after = {n: self._earlier(n) for n in range(len(self.parameters))}
        try:
            self._order = [*graphlib.TopologicalSorter(self._after).static_order()]
        except graphlib.CycleError as error:
            number = error.args[1][0]
            message = "depends on itself, by way of other parameters"
            problem = self.parameters[number]._problem("conflict", "when", message)
            raise ConfigError([problem]) from None
        self.points = self._points()

    @property
    def count(self) -> int:
        """The number of trials."""
        return self.config.trials or len(self.points)

    def point(self, number: int) -> Assignment:
        """Returns the values of the grids in a trial."""
        return self.points[number % len(self.points)]

    def assign(self, value_of: Callable[[int], Any]) -> Assignment:
        """Returns the values of a trial; `value_of` is asked for those that count, in order."""
        return self._walk(value_of)[0]

    def named(self, assignment: Assignment) -> dict[str, Any]:
        """Returns the values of a trial by path."""
        return {self.parameters[n].path: value for n, value in assignment.items()}

    def numbered(self, values: Mapping[str, Any]) -> Assignment:
        """Returns the values of a trial, that were saved by path, by number."""
        return self.assign(lambda n: values[self.parameters[n].path])

    def override(self, assignment: Assignment) -> str:
        """Returns the text that as `--params_override` sets the values of a trial."""
        return ",".join(_written(path, value) for path, value in self.named(assignment).items())

    def _earlier(self, number: int) -> list[int]:
        """Returns the parameters that are set before another one, which depends on them."""
        path, conditions = self.parameters[number].path, self._conditions[number]
        return [
            n
            for n, other in enumerate(self.parameters)
            if n != number
            and (
                any(_within(condition, other.path) for condition in conditions)
                or (path != other.path and _within(path, other.path))
            )
        ]

    def _walk(self, value_of: Callable[[int], Any]) -> tuple[Assignment, ExperimentConfig]:
        """Sets the parameters that count, one after another; returns them and the experiment."""
        config, assignment = self.base.replace(), {}
        for number in self._order:
            conditions = self._conditions[number]
            if all(_value_at(config, path) in values for path, values in conditions.items()):
                assignment[number] = value = value_of(number)
                _set(config, self.parameters[number], value)
        return assignment, config

    def _points(self) -> list[Assignment]:
        """Returns the points of all grids, those of grids that count alone."""
        grids = {n: p.grid for n, p in enumerate(self.parameters) if p.grid}
        points: list[Assignment] = []
        for values in itertools.product(*grids.values()):
            point = dict(zip(grids, values, strict=True))
            point = {n: value for n, value in self._scene(point)[0].items() if n in grids}
            if point not in points:
                points.append(point)
        return points

    # ---- checking ------------------------------------------------------------------------------

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong with the parameters together, whose values are right each alone."""
        structural = [p for n in range(len(self.parameters)) for p in self._structural(n)]
        yield from structural or self._of_trials()

    def _of_trials(self) -> Iterator[Problem]:
        """Yields what is wrong with trials: each value once, and all choices that decide others."""
        deciding = {n for earlier in self._after.values() for n in earlier}
        choices = {n: self.parameters[n].values for n in deciding if self.parameters[n].values}
        counted: dict[int, dict[int, Any]] = {}
        wholes = []
        for values in itertools.product(*choices.values()):
            scene = dict(zip(choices, values, strict=True))
            assignment, config = self._scene(scene)
            wholes.append(config)
            for number in assignment.keys() - counted.keys():
                counted[number] = scene
        for number, parameter in enumerate(self.parameters):
            if number not in counted:
                yield self._never(number)
                continue
            for value in parameter.edges():
                _, config = self._scene({**counted[number], number: value})
                yield from self._of_whole(config, parameter)
        for config in wholes:
            yield from self._of_whole(config, self.parameters[self._order[0]])

    def _scene(self, values: Mapping[int, Any]) -> tuple[Assignment, ExperimentConfig]:
        """Returns a trial with some values, and the first ones of all other parameters."""
        return self._walk(lambda n: values[n] if n in values else self.parameters[n].edges()[0])

    def _of_whole(self, config: ExperimentConfig, parameter: ParameterConfig) -> Iterator[Problem]:
        """Yields what is wrong with the experiment of a trial, at the parameter that is checked."""
        errors, _ = findings(config, [])
        kept = {problem.path for problem in errors}
        errors += [p for p in config.problems_in_mode(MODE) if p.path not in kept]
        for problem in errors:
            yield problem._replace(origin=problem.origin or parameter._origin_near(parameter.kind))

    def _structural(self, number: int) -> Iterator[Problem]:
        parameter = self.parameters[number]
        paths = {p.path: p for p in self.parameters}
        for path, value in parameter.when.items():
            other, values = paths.get(path), value if isinstance(value, list) else [value]
            if other is None:
                choosing = [p.path for p in self.parameters if p.values and p is not parameter]
                message = f"{path!r} is no parameter of this sweep{nearest_or_all(path, choosing)}"
                yield parameter._problem("value", "when", message)
            elif not other.values:
                message = f"{path!r} must be a `choice` or a `grid`, it is {other.kind!r}"
                yield parameter._problem("value", "when", message)
            else:
                for strange in [v for v in values if v not in other.values]:
                    known = ", ".join(map(_text, other.values))
                    message = f"{path!r} is never {_text(strange)}; its values are {known}"
                    yield parameter._problem("value", "when", message)
        for earlier in self._after[number]:
            if parameter.grid and not self.parameters[earlier].grid:
                place = self.parameters[earlier]._path
                message = f"a grid depends on other grids alone; make {place} a `grid` too"
                yield parameter._problem("conflict", "grid", message)
        for n, other in enumerate(self.parameters[:number]):
            if other.path == parameter.path and not self._exclude(n, number):
                message = f"is that of {other._path} too; a `when` in both must keep them apart"
                yield parameter._problem("conflict", "path", message)

    def _exclude(self, one: int, other: int) -> bool:
        """Whether the conditions of two parameters never hold together."""
        ours, theirs = self._conditions[one], self._conditions[other]
        return any(
            all(value not in theirs[path] for value in values)
            for path, values in ours.items()
            if path in theirs
        )

    def _never(self, number: int) -> Problem:
        parameter = self.parameters[number]
        wanted = [
            f"{path} is {' or '.join(map(_text, values))}"
            for path, values in self._conditions[number].items()
        ]
        message = f"is never used: it counts where {' and '.join(wanted)}, which no trial has"
        return parameter._problem("conflict", "path", message)


def read_sweep(
    params: yaml_file.SourcedDict, unread: list[Problem], path: str | os.PathLike
) -> tuple[SweepConfig, list[Problem]]:
    """Returns what the file of a sweep says, and what is wrong with it by itself.

    `params` and `unread` are what `yaml_file.read_file` returned of the file at `path`.
    """
    written = params.pop("parameters", [])
    origin = params.origins.get("parameters", Origin(os.fspath(path)))
    config, problems = layered(SweepConfig(), [params])
    if not isinstance(written, list):
        message = f"expected a list, got {describe(written)}; write `- path: ...` for each"
        problems.append(Problem("type", "parameters", message, origin))
        written = []
    parameters = []
    broken = set()  # what is wrong with those together says nothing
    for number, item in enumerate(written):
        plan, parameter = Plan(), ParameterConfig()
        parameter._move(f"parameters[{number}]")
        plan.add(parameter, item, origin)
        plan.commit()
        problems += plan.problems
        parameters.append(parameter)
        broken |= {parameter._path} if plan.problems else set()
    config.parameters = parameters
    problems, _ = findings(config, [*unread, *problems])
    problems = [p for p in problems if p.code != "conflict" or p.path.split(".")[0] not in broken]
    return config, problems


def load_space(path: str | os.PathLike, base: ExperimentConfig) -> Space:
    """Reads the YAML file of a sweep over `base`.

    Raises:
        ConfigError: Everything that is wrong with the file, or that makes a trial impossible.
    """
    params, unread = yaml_file.read_file(path)
    if unread and not params:  # that nothing is in it says no more
        raise ConfigError(unread)
    config, problems = read_sweep(params, unread, path)
    problems += _undecided(config, base)
    usable = [p for p in config.parameters if p.kind and p.path is not REQUIRED]
    for parameter in usable:
        problems += _misfits(parameter, base)
    if not problems:
        space = Space(config, base)
        problems = [*space.problems()]
    if problems:
        found = [p._replace(origin=p.origin or Origin(os.fspath(path))) for p in problems]
        found.sort(key=lambda problem: (problem.origin and problem.origin.line) or 0)
        raise ConfigError({(problem.path, problem.message): problem for problem in found}.values())
    return space


def _undecided(config: SweepConfig, base: ExperimentConfig) -> Iterator[Problem]:
    """Yields what is wrong with the settings of a sweep beside the experiment's."""
    steps = base.trainer.train_steps
    varied = any(parameter.path == "trainer.train_steps" for parameter in config.parameters)
    if config.prune and config.grace_steps and config.grace_steps >= steps and not varied:
        message = f"must be < `trainer.train_steps` {steps}, or nothing is ever stopped"
        yield config._problem("conflict", "grace_steps", message)
    if not config.direction(base.trainer):
        message = f"must be given: whether a higher or a lower {config.metric!r} is better"
        usual = {base.trainer.best_checkpoint_eval_metric, "loss"}
        message += did_you_mean(config.metric, usual)
        yield config._problem("missing", "metric_comp", message)


def _misfits(parameter: ParameterConfig, base: ExperimentConfig) -> Iterator[Problem]:
    """Yields what is wrong with the values of a parameter as those of the setting."""
    for value in parameter.edges():
        for problem in _set(base.replace(), parameter, value):
            if problem.code == "unknown-key":
                origin = parameter._origin_near("path")
                yield problem._replace(origin=origin)
                return
            hint = ""
            if problem.message.startswith("expected an integer, got") and parameter.uniform:
                hint = "; write `int: [...]`"
            yield problem._replace(message=problem.message + hint)


def _set(config: ExperimentConfig, parameter: ParameterConfig, value: Any) -> list[Problem]:
    """Sets a parameter's value in an experiment, if it is right; returns what is wrong with it."""
    layer, plan = SourcedDict(), Plan()
    put(layer, parameter.path, value, parameter._origin_near(parameter.kind))
    plan.add(config, layer)
    plan.commit()
    return plan.problems


def _conditions(parameter: ParameterConfig, base: ExperimentConfig) -> dict[str, list]:
    """Returns the values that other settings have where a parameter counts."""
    found = {
        path: [*values] if isinstance(values, list) else [values]
        for path, values in parameter.when.items()
    }
    node: Any = base
    place = ""
    for name in _SEGMENT.findall(parameter.path):
        if isinstance(node, OneOfConfig) and name in node.branches():
            found[f"{place}.type"] = [name]
        if isinstance(node, Config):
            spec, place = node._find_spec(name), f"{place}.{name}".lstrip(".")
            node = getattr(node, name) if spec else None
            if node is None and spec and spec.config_class:
                node = spec.config_class()
        elif isinstance(node, list | tuple) and name.isdigit() and int(name) < len(node):
            node, place = node[int(name)], f"{place}[{name}]"
        else:
            break
    return found


def _value_at(config: Any, path: str) -> Any:
    for name in _SEGMENT.findall(path):
        if isinstance(config, list | tuple):
            config = config[int(name)] if int(name) < len(config) else None
        else:
            config = getattr(config, name, None)
    return config


def _within(path: str, section: str) -> bool:
    """Whether a path is that of a section, or of something in it."""
    names, above = _SEGMENT.findall(path), _SEGMENT.findall(section)
    return names[: len(above)] == above


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _written(path: str, value: Any) -> str:
    """Returns the text that sets a value, which is read as the same value again."""
    if isinstance(value, str):
        text = f"{path}={value}"
        layer, problems = read_override(text)
        if not problems and _value_at_keys(layer, path) == value:
            return text
    return f"{path}={json.dumps(value, ensure_ascii=False)}"


def _value_at_keys(layer: Any, path: str) -> Any:
    for name in _SEGMENT.findall(path):
        layer = layer[int(name) if name.isdigit() else name]
    return layer
