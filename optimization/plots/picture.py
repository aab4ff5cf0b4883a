"""`Picture`: curves over optimizer steps, computed; each renderer draws the same one."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from optimization.configs.errors import ConfigError, Problem
from optimization.configs.optimization_config import OptimizationConfig
from optimization.matching.rules import DEFAULT
from optimization.plots.curves import LEARNING_RATE, Line, Mark, lines_of
from optimization.plots.points import even_steps, telling_points
from optimization.plots.ticks import number

FORMATS = (".png", ".svg", ".html", ".csv")
"""The kinds of files that a picture can be saved as."""


class Curve(NamedTuple):
    """A curve of a picture.

    Attributes:
        name: What the legend calls it.
        values: Its value at each of the picture's steps, exact; None where it is over.
        marks: What happens to it, at which steps.
    """

    name: str
    values: tuple[float | None, ...]
    marks: tuple[Mark, ...]


class Picture(NamedTuple):
    """Curves over optimizer steps; a notebook shows it, `print` draws it in the terminal.

    >>> from optimization.configs.optimization_config import OptimizationConfig
    >>> config = OptimizationConfig({
    ...     "optimizer": {"type": "sgd"},
    ...     "learning_rate": {"type": "stepwise", "stepwise": {
    ...         "boundaries": [100], "values": [0.1, 0.01]}},
    ... })
    >>> picture = picture_of({"mine": config})
    >>> print(picture.summary())
    mine: 0.1 at step 0, 0.01 at step 105; boundary at step 100
    `train_steps` is not known: drawn as far as it bends

    Attributes:
        title: What the heights are, in words.
        steps: Optimizer steps, increasing; straight lines between them show all that curves do.
        curves: The curves.
        log: Whether heights are drawn on a logarithmic axis.
        notes: What a reader should know.
    """

    title: str
    steps: tuple[int, ...]
    curves: tuple[Curve, ...]
    log: bool
    notes: tuple[str, ...]

    def points(self, curve: Curve) -> list[tuple[int, float]]:
        """Returns what can be drawn of a curve: steps and values."""
        pairs = zip(self.steps, curve.values, strict=True)
        return [(s, v) for s, v in pairs if v is not None and (v > 0 or not self.log)]

    def summary(self) -> str:
        """Says in words what the picture shows, a line for each curve, and the notes."""
        curves, marks = self.curves, told_marks(self.curves[0].marks)
        if len(curves) > 1 and all(curve.marks == curves[0].marks for curve in curves):
            told = [curve._replace(marks=()) for curve in curves]
            together = [f"all: {'; '.join(marks)}"] if marks else []
        else:
            told, together = [*curves], []
        return "\n".join([*map(self._told, told), *together, *self.notes])

    def _told(self, curve: Curve) -> str:
        points = self.points(curve)
        peak = max(points, key=lambda point: point[1])
        telling = dict.fromkeys([points[0], peak, points[-1]])
        text = ", ".join(f"{number(value)} at step {step:,}" for step, value in telling)
        if all(value == peak[1] for _, value in points):
            text = f"always {number(peak[1])}"
        return "; ".join([f"{curve.name}: {text}", *told_marks(curve.marks)])

    def save(self, path: str | os.PathLike) -> None:
        """Writes the picture: `.png`, `.svg`, `.html` with hover and zoom, or `.csv` of its points.

        Raises:
            ValueError: For another ending.
            OSError: If the file can't be written.
            MissingExtraError: If `.png` is asked for, and Matplotlib is not installed.
        """
        content = renderer(path)(self)
        if isinstance(content, bytes):
            Path(path).write_bytes(content)
        else:
            with open(path, "w", encoding="utf-8", newline="") as file:
                file.write(content)

    def __repr__(self) -> str:
        names = ", ".join(curve.name for curve in self.curves)
        steps = f"steps {self.steps[0]:,} to {self.steps[-1]:,}"
        return f"<Picture of {self.title}: {names}; {steps}>"

    def __str__(self) -> str:
        from optimization.plots.terminal import drawn

        return drawn(self)

    def _repr_html_(self) -> str:
        from optimization.plots.svg import svg

        return svg(self)


def renderer(path: str | os.PathLike) -> Callable[[Picture], str | bytes]:
    """Returns what draws a picture for a file of this name.

    Raises:
        ValueError: If no kind of picture has this ending.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        got = f"{ending!r}" if ending else "none"
        raise ValueError(f"a picture's file ends with {', '.join(FORMATS)}; got {got}")
    if ending == ".png":
        from optimization.plots.image import png

        return png
    if ending == ".svg":
        from optimization.plots.svg import document

        return document
    if ending == ".html":
        from optimization.plots.html import page

        return page
    from optimization.plots.table import csv_text

    return csv_text


def told_marks(marks: Sequence[Mark]) -> list[str]:
    """Returns each kind of mark with its steps, in words.

    >>> told_marks([Mark(5, "warmup ends"), Mark(10, "boundary"), Mark(20, "boundary")])
    ['warmup ends at step 5', 'boundaries at steps 10, 20']
    """
    steps: dict[str, list[int]] = {}
    for mark in marks:
        steps.setdefault(mark.text, []).append(mark.step)
    return [_told(text, found) for text, found in steps.items()]


def _told(text: str, steps: list[int]) -> str:
    listed = ", ".join(f"{step:,}" for step in steps[:6]) + (", ..." if len(steps) > 6 else "")
    if len(steps) == 1:
        return f"{text} at step {listed}"
    return f"{text[:-1]}ies at steps {listed}"


def picture_of(
    configs: Mapping[str, OptimizationConfig],
    what: str = LEARNING_RATE,
    groups: str | Sequence[str] = (),
    log: bool = False,
    steps: tuple[int | None, int | None] = (None, None),
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


def picture_of_lines(
    lines: Mapping[str, Sequence[Line]],
    title: str = "learning rate",
    log: bool = False,
    steps: tuple[int | None, int | None] = (None, None),
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
    steps: tuple[int | None, int | None] = (None, None),
) -> Picture:
    """Returns the picture of lines; where a range is given, they are drawn past their ends.

    Raises:
        ConfigError: If there is nothing to draw.
    """
    first, last = steps[0] or 0, steps[1]
    lasts = [line.last if last is None else last for line in lines]
    if max(lasts) <= first:
        message = f"nothing is to be seen from step {first:,} on: the end is at {max(lasts):,}"
        raise ConfigError([Problem("value", "", message)])
    notes: dict[str, list[str]] = {}
    lines = [line for line, end in zip(lines, lasts, strict=True) if end > first]
    lasts = [end for end in lasts if end > first]
    together = even_steps(first, max(lasts))
    for line, end in zip(lines, lasts, strict=True):
        bends = {*line.steps, *together, *(mark.step for mark in line.marks), first, end}
        found, are_enough = telling_points(
            line.function, {step for step in bends if first <= step <= end}, log
        )
        together.update(found)
        waves = "there are more waves than points: draw a part of the steps"
        for note in [*line.notes, *([] if are_enough else [waves])]:
            notes.setdefault(note, []).append(line.name)
    all_steps = sorted(together)
    curves = [_curve(line, all_steps, end) for line, end in zip(lines, lasts, strict=True)]
    title += ", logarithmic" if log else ""
    picture = Picture(title, tuple(all_steps), tuple(curves), log, ())
    drawable = tuple(curve for curve in curves if picture.points(curve))
    if not drawable:
        message = "there is nothing to draw: a logarithmic axis has no 0"
        raise ConfigError([Problem("value", "", message)])
    if log and any(value == 0 for curve in curves for value in curve.values):
        notes["values of 0 are left out: a logarithmic axis does not have them"] = []
    told = tuple(_of(names, note, len(lines)) for note, names in notes.items())
    return picture._replace(curves=drawable, notes=told)


def _of(names: list[str], note: str, count: int) -> str:
    return note if len(names) in (0, count) else f"{', '.join(names)}: {note}"


def _curve(line: Line, steps: list[int], end: int) -> Curve:
    inside = [step for step in steps if step <= end]
    values = [value if math.isfinite(value) else None for value in line.function(inside)]
    values += [None] * (len(steps) - len(inside))
    seen = [mark for mark in line.marks if steps[0] <= mark.step <= end]
    return Curve(line.name, tuple(values), tuple(sorted(set(seen))))
