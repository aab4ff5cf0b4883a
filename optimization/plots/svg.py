"""Draws a picture as SVG, for notebooks and documents: no library, no script."""

import math
from collections.abc import Iterator
from html import escape

from optimization.plots.curves import Mark
from optimization.plots.picture import Picture
from optimization.plots.ticks import limits, number, short_step, ticks

# Okabe and Ito 2008, far from each other also for colour-blind eyes; blue first.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#a6761d")
DASHES = ("", "7 3", "2 2")
"""Further curves take the colors again, dashed."""

_WIDTH, _HEIGHT = 760, 300  # of the drawing, without the legend
_TOP, _RIGHT, _BOTTOM = 40, 16, 42
_TEXT = "currentColor"
_LETTER, _LINE = 6.2, 17  # about as wide and as high as 11 px text is

_STYLE = (
    "svg{background:#fff;color:#333}"
    "@media(prefers-color-scheme:dark){svg{background:#15181c;color:#ccc}}"
)


def document(picture: Picture) -> str:
    """Returns a picture as the text of an SVG file, light or dark as its reader's screen is."""
    return svg(picture, f"<style>{_STYLE}</style>") + "\n"


def svg(picture: Picture, head: str = "") -> str:
    """Returns a picture as an `<svg>` element, in the text color of the page that it is put in."""
    return _Drawing(picture).text(head)


def color_and_dash(index: int) -> tuple[str, str]:
    """Returns the color and the dashes of a curve by its number, from 0."""
    return COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]


def mark_colors(picture: Picture) -> dict[Mark, str]:
    """Returns the marks of all curves, each with its curve's color; that of text if several's."""
    colors: dict[Mark, str] = {}
    for index, curve in enumerate(picture.curves):
        for mark in curve.marks:
            color = color_and_dash(index)[0]
            colors[mark] = _TEXT if len(picture.curves) == 1 or mark in colors else color
    return colors


class _Drawing:
    def __init__(self, picture: Picture):
        self.picture = picture
        heights = [v for curve in picture.curves for _, v in picture.points(curve)]
        self.low, self.high = limits(heights, picture.log)
        self.heights = ticks(self.low, self.high, 6, picture.log)
        self.left = 14 + _LETTER * max(len(number(tick)) for tick in self.heights)

    def text(self, head: str) -> str:
        legend, lines = self._legend()
        height = _HEIGHT + lines * _LINE
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" style="max-width:100%" font-family="sans-serif" font-size="11" '
            f'fill="currentColor" role="img"><title>{escape(self.picture.title)}</title>{head}',
            *self._axes(),
            *self._marks(),
            *self._curves(),
            *legend,
            "</svg>",
        ]
        return "\n".join(parts)

    def _x(self, step: float) -> float:
        first, last = self.picture.steps[0], self.picture.steps[-1]
        return self.left + (_WIDTH - _RIGHT - self.left) * (step - first) / (last - first)

    def _y(self, value: float) -> float:
        low, high = self.low, self.high
        if self.picture.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        bottom = _HEIGHT - _BOTTOM
        return bottom - (bottom - _TOP) * (value - low) / (high - low)

    def _axes(self) -> Iterator[str]:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for tick in self.heights:
            y = self._y(tick)
            yield _line(self.left, y, right, y, 'opacity=".15"')
            yield _text(self.left - 6, y + 4, number(tick), 'text-anchor="end"')
        for tick in ticks(self.picture.steps[0], self.picture.steps[-1], 9):
            x = self._x(tick)
            yield _line(x, bottom, x, bottom + 4, 'opacity=".6"')
            yield _text(x, bottom + 17, short_step(tick), 'text-anchor="middle"')
        yield _line(self.left, bottom, right, bottom, 'opacity=".6"')
        yield _text(right, bottom + 33, "optimizer steps", 'text-anchor="end" opacity=".7"')
        yield _text(4, 13, self.picture.title, 'font-weight="bold"')

    def _marks(self) -> Iterator[str]:
        """Yields what happens at steps, with words where there is room for them."""
        taken = -math.inf
        for (step, what), color in sorted(mark_colors(self.picture).items()):
            x, words = self._x(step), f"{what} {short_step(step)}"
            title = f"<title>{escape(what)} at step {step:,}</title>"
            more = 'opacity=".6" stroke-dasharray="3 3"'
            yield _line(x, _TOP, x, _HEIGHT - _BOTTOM, more, color, title)
            half = _LETTER * len(words) / 2
            middle = min(max(x, self.left + half), _WIDTH - 4 - half)
            if middle - half > taken:
                more = f'text-anchor="middle" fill="{color}" opacity=".8"'
                yield _text(middle, _TOP - 6, words, more)
                taken = middle + half + 6

    def _curves(self) -> Iterator[str]:
        for index, curve in enumerate(self.picture.curves):
            color, dash = color_and_dash(index)
            points = [(self._x(s), self._y(v)) for s, v in self.picture.points(curve)]
            places = " ".join(f"{x:.2f},{y:.2f}" for x, y in _without_straight(points))
            yield (
                f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2" '
                f'stroke-linejoin="round" stroke-dasharray="{dash}"/>'
            )

    def _legend(self) -> tuple[list[str], int]:
        curves, found = self.picture.curves, []
        x, line = self.left, 0
        for index, curve in enumerate(curves):
            width = 28 + _LETTER * len(curve.name) + 14
            if x > self.left and x + width > _WIDTH:
                x, line = self.left, line + 1
            color, dash = color_and_dash(index)
            y = _HEIGHT + 8 + line * _LINE
            more = f'stroke-width="2" stroke-dasharray="{dash}"'
            found.append(_line(x, y, x + 22, y, more, color))
            found.append(_text(x + 28, y + 4, curve.name))
            x += width
        for note in self.picture.notes:
            line += 1
            found.append(_text(self.left, _HEIGHT + 12 + line * _LINE, note, 'opacity=".7"'))
        return found, line + 1


def _line(
    x: float, y: float, x2: float, y2: float, more: str, color: str = _TEXT, inside: str = ""
) -> str:
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" {more}>{inside}</line>'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _without_straight(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leaves out points that lie within a tenth of a pixel of the straight line they are on."""
    kept = points[:1]
    candidates: list[tuple[float, float]] = []
    for point in points[1:]:
        if any(_distance(c, kept[-1], point) > 0.1 for c in candidates):
            kept.append(candidates[-1])
            candidates = []
        candidates.append(point)
    return kept + candidates[-1:]


def _distance(
    point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]
) -> float:
    across, up = end[0] - start[0], end[1] - start[1]
    length = math.hypot(across, up)
    if not length:
        return math.hypot(point[0] - start[0], point[1] - start[1])
    return abs(across * (point[1] - start[1]) - up * (point[0] - start[0])) / length
