"""Computes pictures: chooses the steps, names the curves, collects what is to be said."""

import math
from collections.abc import Mapping, Sequence

from optimization.configs.errors import ConfigError, Problem
from optimization.configs.optimization_config import OptimizationConfig
from optimization.matching.rules import DEFAULT
from optimization.plots.curves import ALL, LEARNING_RATE, Line, lines_of
from optimization.plots.picture import Curve, Picture
from optimization.plots.points import even_steps, telling_points

Range = tuple[int | None, int | None]
"""The first and the last optimizer step of a picture; None for the start and the end."""


def picture_of(
    configs: Mapping[str, OptimizationConfig],
    what: str = LEARNING_RATE,
    groups: str | Sequence[str] = (),
    log: bool = False,
    steps: Range = (None, None),
) -> Picture:
    """Returns the picture of configs whose steps are numbers, as far as they are known.

    Args:
        configs: The configs by name; "" for one that needs none.
        what: `learning_rate`, or a number of the optimizer that may follow a schedule.
        groups: Labels of `param_groups`, `default`, `layer L-2`, `all`; none for `default`.
        log: Whether heights are drawn on a logarithmic axis.
        steps: The first and the last step, in optimizer steps; None for all.

    Raises:
        ConfigError: If there is no such hyperparameter or group, or nothing to draw.
    """
    groups = [groups] if isinstance(groups, str) else groups
    lines = {name: lines_of(config, what, groups) for name, config in configs.items()}
    return picture_of_lines(lines, what.replace("_", " "), log, steps)


def picture_of_all(config: OptimizationConfig) -> Picture:
    """Returns the picture of the learning rates of all groups of a config, as `picture_of` does."""
    has_groups = config.groups() or config.layer_decay
    return picture_of({"": config}, groups=[ALL] if has_groups else [])


def picture_of_lines(
    lines: Mapping[str, Sequence[Line]],
    title: str = "learning rate",
    log: bool = False,
    steps: Range = (None, None),
) -> Picture:
    """Returns the picture of the lines of several configs, by the name of each."""
    named = [
        line._replace(name=_label(name, line.name, len(lines), len(group)) or title)
        for name, group in lines.items()
        for line in group
    ]
    alone = next(iter(lines)) if len(lines) == 1 < len(named) else ""
    return drawn_together(named, f"{title} of {alone}" if alone else title, log, steps)


def _label(name: str, group: str, configs: int, groups: int) -> str:
    if groups == 1 and group in ("", DEFAULT):
        return name
    return group if not name or configs == 1 < groups else f"{name}: {group}"


def drawn_together(
    lines: Sequence[Line],
    title: str = "learning rate",
    log: bool = False,
    steps: Range = (None, None),
) -> Picture:
    """Returns the picture of lines; where a last step is given, they are drawn past their ends.

    Raises:
        ConfigError: If there is nothing to draw.
    """
    first, last = steps[0] or 0, steps[1]
    if last is not None:
        lines = [line._replace(last=last, has_end=True) for line in lines]
    end = max(line.last for line in lines)
    lines = [line for line in lines if line.last > first]
    if not lines:
        message = f"nothing is to be seen from step {first:,} on: the end is at {end:,}"
        raise ConfigError([Problem("value", "", message)])
    found, crowded = _steps(lines, first, log)
    curves = [_curve(line, found) for line in lines]
    title += ", logarithmic" if log else ""
    picture = Picture(title, tuple(found), tuple(curves), log, tuple(_notes(lines, crowded)))
    if not log:
        return picture
    drawable = tuple(curve for curve in curves if picture.points(curve))
    if not drawable:
        message = "there is nothing to draw: a logarithmic axis has no 0"
        names = ", ".join(line.name for line in lines)
        raise ConfigError([Problem("value", names, message)])
    if any(value == 0 for curve in curves for value in curve.values):
        note = "values of 0 are left out: a logarithmic axis does not have them"
        picture = picture._replace(notes=(*picture.notes, note))
    return picture._replace(curves=drawable)


def _steps(lines: Sequence[Line], first: int, log: bool) -> tuple[list[int], list[str]]:
    """Returns the steps that all curves share, and the names of those that would need more."""
    steps = even_steps(first, max(line.last for line in lines))
    crowded = []
    for line in lines:
        bends = {*line.steps, *steps, *(mark.step for mark in line.marks), first, line.last}
        inside = {step for step in bends if first <= step <= line.last}
        found, are_enough = telling_points(line.function, inside, log)
        steps.update(found)
        crowded += [] if are_enough else [line.name]
    return sorted(steps), crowded


def _curve(line: Line, steps: list[int]) -> Curve:
    inside = [step for step in steps if step <= line.last]
    values = [value if math.isfinite(value) else None for value in line.function(inside)]
    values += [None] * (len(steps) - len(inside))
    marks = {mark for mark in line.marks if steps[0] <= mark.step <= line.last}
    return Curve(line.name, tuple(values), tuple(sorted(marks)))


def _notes(lines: Sequence[Line], crowded: Sequence[str]) -> list[str]:
    """Returns what is to be said, with the names of the curves unless it is of all."""
    notes: dict[str, list[str]] = {}
    for line in lines:
        unknown = "`train_steps` is not known: drawn as far as it bends"
        waves = "there are more waves than points: draw a part of the steps"
        told = {unknown: not line.has_end, waves: line.name in crowded}
        for note in [*(note for note, is_so in told.items() if is_so), *line.notes]:
            notes.setdefault(note, []).append(line.name)
    return [
        note if len(names) == len(lines) else f"{', '.join(names)}: {note}"
        for note, names in notes.items()
    ]
