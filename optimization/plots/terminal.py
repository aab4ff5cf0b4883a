"""Draws a picture in the terminal, with the dots of braille."""

import math
import shutil
import textwrap
from itertools import pairwise

from optimization import extras
from optimization.plots.picture import Curve, Picture
from optimization.plots.table import listed
from optimization.plots.ticks import limits, number, short_step, ticks

# Of 256 colors, far from each other also for colour-blind eyes, on dark and on light.
_COLORS = (33, 208, 36, 170, 75, 137)
_MARK = 244  # grey
_LEAST, _MOST = 40, 200  # columns


def drawn(picture: Picture, width: int | None = None) -> str:
    """Returns a picture as text: the curves, the axes, and what there is to say.

    Curves have colors where standard output is a terminal and `NO_COLOR` is not set, and several
    carry their numbers in any case.

    Args:
        picture: What to draw.
        width: Columns, from 40 to 200; None for those of the terminal, 80 where there is none.

    Raises:
        MissingExtraError: If plotille is not installed.
    """
    return _Drawing(picture, width or shutil.get_terminal_size().columns).text()


def drawn_or_listed(picture: Picture) -> str:
    """Returns `drawn`; without plotille the values at telling steps, and which extra brings it."""
    try:
        return drawn(picture)
    except extras.MissingExtraError as error:
        return f"{listed(picture)}\n\nNo drawing: {error}"


class _Drawing:
    """A picture on the dots of a canvas, between axes."""

    def __init__(self, picture: Picture, width: int):
        plotille = extras.require("plotille")
        self.picture = picture
        self.width = min(max(width, _LEAST), _MOST)
        self.rows = min(max(self.width // 6, 12), 24)
        points = [picture.points(curve) for curve in picture.curves]
        heights = [value for found in points for _, value in found]
        self.low, self.high = limits(heights, picture.log)
        self.labels = self._labels()
        self.margin = max(map(len, self.labels.values()))
        bottom, top = self._placed(self.low), self._placed(self.high)
        columns, first, last = self.width - self.margin - 2, picture.steps[0], picture.steps[-1]
        # The last dot of a canvas lies before its limits.
        self.canvas = plotille.Canvas(
            columns,
            self.rows,
            first,
            bottom,
            first + (last - first) * 2 * columns / (2 * columns - 1),
            bottom + (top - bottom) * 4 * self.rows / (4 * self.rows - 1),
            mode="byte",
        )
        self.colored = plotille.color
        for curve in picture.curves:
            self._draw_marks(curve)
        for index, found in enumerate(points):
            self._draw(found, _color(index))
        if len(points) > 1:
            for index, found in enumerate(points):
                self._number(index, found)

    def text(self) -> str:
        rows = self.canvas.plot().splitlines()
        sides = [self.labels.get(row, "").rjust(self.margin) for row in range(self.rows)]
        axes = [f"{side} {'┤' if side.strip() else '│'}" for side in sides]
        body = [f"{axis}{row}".rstrip("⠀ ") for axis, row in zip(axes, rows, strict=True)]
        title = textwrap.wrap(self.picture.title, self.width)
        return "\n".join([*title, *body, *self._step_axis(), "", *self._legend()])

    def _placed(self, value: float) -> float:
        return math.log10(value) if self.picture.log else value

    def _labels(self) -> dict[int, str]:
        """Returns the numbers at the left, by row from the top."""
        low, high = self._placed(self.low), self._placed(self.high)
        found = ticks(self.low, self.high, max(self.rows // 2, 4), self.picture.log)
        dots = 4 * self.rows - 1
        places = {t: round((self._placed(t) - low) / (high - low) * dots) // 4 for t in found}
        return {self.rows - 1 - place: number(tick) for tick, place in places.items()}

    def _draw_marks(self, curve: Curve) -> None:
        canvas = self.canvas
        dots = 4 * self.rows
        for step in {mark.step for mark in curve.marks}:
            for dot in range(0, dots, 3):
                height = canvas.ymin + (canvas.ymax - canvas.ymin) * dot / dots
                canvas.point(step, height, color=_MARK)

    def _draw(self, points: list[tuple[int, float]], color: int) -> None:
        placed = [(step, self._placed(value)) for step, value in points]
        for start, end in pairwise(placed):
            self.canvas.line(*start, *end, color=color)
        if len(placed) == 1:
            self.canvas.point(*placed[0], color=color)

    def _number(self, index: int, points: list[tuple[int, float]]) -> None:
        """Writes a curve's number on it, each at another place."""
        places = (index + 1, len(self.picture.curves) + 1)
        step, value = points[len(points) * places[0] // places[1]]
        row_height = (self.canvas.ymax - self.canvas.ymin) / self.rows
        height = min(self._placed(value), self.canvas.ymax - row_height / 2)
        text = str(index + 1)
        width = (self.canvas.xmax - self.canvas.xmin) / self.canvas.width
        step = min(step, self.canvas.xmax - width * (len(text) + 1))
        self.canvas.text(step, height, text, color=_color(index))

    def _step_axis(self) -> list[str]:
        """Returns the line below the dots, and the steps under it."""
        first, last, columns = self.picture.steps[0], self.picture.steps[-1], self.canvas.width
        line, numbers = ["─"] * columns, [" "] * (columns + 8)
        taken = -1
        for tick in ticks(first, last, max(columns // 10, 3)):
            column = round((tick - first) / (last - first) * (columns - 1))
            text = short_step(tick)
            start = max(column - len(text) // 2, 0)
            start = min(start, columns - len(text))
            if start > taken:
                line[column] = "┬"
                numbers[start : start + len(text)] = text
                taken = start + len(text)
        side = " " * self.margin
        return [
            f"{side} └{''.join(line)}",
            f"{side}  {''.join(numbers).rstrip()}",
            f"{side}  {'optimizer steps'.rjust(columns)}",
        ]

    def _legend(self) -> list[str]:
        count = len(self.picture.curves)
        legend = []
        for index, line in enumerate(self.picture.summary().splitlines()):
            label = f"{index + 1} " if index < count > 1 else ""
            parts = textwrap.wrap(
                label + line, self.width, subsequent_indent="    ", break_on_hyphens=False
            )
            if label:
                parts[0] = (
                    self.colored(label, fg=_color(index), mode="byte") + parts[0][len(label) :]
                )
            legend += parts
        return legend


def _color(index: int) -> int:
    return _COLORS[index % len(_COLORS)]
