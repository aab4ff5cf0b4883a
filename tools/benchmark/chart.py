"""The results as bars."""

import math
import pathlib
from collections.abc import Sequence

from tools.benchmark.contestants import CONTESTANTS
from tools.benchmark.floor import BYTES
from tools.benchmark.turns import Result
from tools.benchmark.variants import VARIANTS

_HEIGHT = 0.22  # of a bar, in inches
_OURS, _OTHERS = "#1f6f8b", "#b8bec4"


def draw(results: Sequence[Result], path: pathlib.Path) -> None:
    """Writes a PNG of the results of one list: a panel for each update.

    Bars are multiples of `a += b`; a line marks what the update's own bytes take at that speed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str, list[Result]] = {}
    for result in results:
        if result.skipped is None:
            panels.setdefault(result.variant, []).append(result)
    if not panels:
        return
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    bars = max(map(len, panels.values()))
    size = (6.5 * columns, _HEIGHT * (bars + 3) * rows + 0.4)
    figure = Figure(size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (variant, of_panel) in zip(axes, panels.items(), strict=False):
        _panel(axis, of_panel)
        axis.set_title(variant, fontsize=9, loc="left")
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.suptitle(f"{results[0].parameter_list}: dark bars are of this project", fontsize=10)
    scale = "time of an update, in times of a += b on as many numbers"
    figure.supxlabel(f"{scale}; dashed: what the update's own bytes take", fontsize=9)
    figure.savefig(path, dpi=120)


def _panel(axis: object, results: Sequence[Result]) -> None:
    ordered = sorted(results, key=lambda result: result.to_add, reverse=True)
    names = [result.contestant + ("" if result.agrees else " (differs)") for result in ordered]
    colors = [_OURS if CONTESTANTS[r.contestant].ours else _OTHERS for r in ordered]
    widths = [result.to_add for result in ordered]
    bars = axis.barh(names, widths, color=colors)
    axis.bar_label(bars, [f"{r.to_add:.2f}  ({r.median:.1f} ms)" for r in ordered], fontsize=7)
    axis.axvline(VARIANTS[results[0].variant].bytes_per_parameter / BYTES, ls="--", c="black", lw=1)
    axis.set_xlim(0, 1.45 * max(widths))  # labels are inside
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
