"""Draws a picture as PNG, by Matplotlib."""

import io

from optimization import extras
from optimization.plots.picture import Picture
from optimization.plots.svg import color_and_dash, mark_colors
from optimization.plots.ticks import limits, number, short_step

_GREY = "#666666"
_MOST_TEXTS = 12  # beside marks, of which there may be hundreds


def png(picture: Picture) -> bytes:
    """Returns a picture as a PNG of 1520 by 720 points, on white.

    Raises:
        MissingExtraError: If Matplotlib is not installed.
    """
    extras.require("matplotlib")
    from matplotlib.figure import Figure  # not pyplot, which would look for a screen

    figure = Figure(figsize=(9.5, 4.5), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    for index, curve in enumerate(picture.curves):
        color, dash = color_and_dash(index)
        points = picture.points(curve)
        axes.plot(
            *zip(*points, strict=True),
            color=color,
            linestyle=(0, [float(part) for part in dash.split()]) if dash else "solid",
            label=_plain(curve.name),
        )
    marks = mark_colors(picture)
    for (step, what), color in marks.items():
        color = _GREY if color == "currentColor" else color
        axes.axvline(step, color=color, linestyle=":", linewidth=1)
        if len(marks) <= _MOST_TEXTS:
            axes.text(
                step,
                0.98,
                f"{what} {short_step(step)}",
                transform=axes.get_xaxis_transform(),
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
                rotation=90,
                va="top",
                ha="right",
                fontsize=8,
                color=color,
            )
    if picture.log:
        axes.set_yscale("log")
    low, high = limits([v for c in picture.curves for _, v in picture.points(c)], picture.log)
    axes.set_ylim(low, high * 1.1 if picture.log else high + (high - low) * 0.04)
    axes.set_xlim(picture.steps[0], picture.steps[-1])
    axes.xaxis.set_major_formatter(lambda step, _: short_step(step))
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.set_xlabel("optimizer steps", loc="right")
    axes.set_title(_plain(picture.title), loc="left", fontweight="bold")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
    if picture.notes:
        figure.supxlabel(_plain("\n".join(picture.notes)), fontsize=8, color=_GREY, ha="center")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _plain(text: str) -> str:
    """Returns a text in which Matplotlib finds no formula."""
    return text.replace("$", r"\$")
