"""`Picture`: curves over optimizer steps, as `drawing` computes them and each renderer draws."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from optimization.plots.curves import Mark
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
    >>> from optimization.plots.drawing import picture_of
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
        from optimization.plots.terminal import drawn_or_listed

        return drawn_or_listed(self)

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
