"""Writes docs/gallery/: a picture of every learning rate, warmup and optimizer, and their pages.

    python -m tools.gallery

Run it after a type was added; a test says so if you forget. It needs matplotlib (`[bench]`), and
draws only what has changed: a picture holds the digest of the numbers that it shows.
"""

import hashlib
import itertools
import math
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from optimization import LR_CLS, OPTIMIZERS_CLS, WARMUP_CLS, OptimizationConfig, OptimizerFactory
from optimization.configs.documentation import first_sentence
from optimization.configs.registry import Registry
from optimization.plots.examples import LENGTH, example
from optimization.schedules.metric import MetricLrConfig
from tests.rules import contracts

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "gallery"
_STEPS = np.arange(0, LENGTH + 1, 2)

MODES = ("replace", "delay", "multiply")
# The decay under the warmups.
_DECAY = {"type": "linear", "linear": {"initial_learning_rate": 0.1}}

# The valley: it is 20 times as steep across as along, and lies askew.
BOTTOM, START, UPDATES = np.array([3.0, 2.0]), np.array([-3.0, 3.5]), 60
_FRAME = np.array([-4.5, -2.0]), np.array([5.5, 5.2])  # the corners of the picture
_ANGLE, _ALONG, _ACROSS = math.radians(25), 0.1, 2.0
_TURN = np.array([[math.cos(_ANGLE), math.sin(_ANGLE)], [-math.sin(_ANGLE), math.cos(_ANGLE)]])
_HESSIAN = _TURN.T @ np.diag([_ALONG, _ACROSS]) @ _TURN
_RATES = [float(f"{digit}e{power}") for power in range(-3, 3) for digit in (1, 2, 5)]


class Picture(NamedTuple):
    """What a picture shows: curves by name, points as columns, and how they are drawn."""

    name: str  # of the file, without its ending
    curves: dict[str, np.ndarray]
    draw: Callable[[Any, dict[str, np.ndarray]], None]
    size: tuple[float, float] = (5.0, 2.2)

    @property
    def digest(self) -> str:
        """A digest of the numbers, to 4 digits of the largest, and of how they are drawn."""
        sums = hashlib.sha256(repr((self.draw.__name__, self.size)).encode())
        for name, points in self.curves.items():
            scale = np.abs(points).max(axis=0)
            rounded = np.round(points / np.where(scale, scale, 1) * 1e4).astype(int)
            sums.update(f"{name} {scale.round(6).tolist()} {rounded.tolist()}".encode())
        return sums.hexdigest()[:16]

    @property
    def path(self) -> pathlib.Path:
        return FOLDER / f"{self.name}.svg"

    def is_drawn(self) -> bool:
        """Says whether the file shows these numbers."""
        return self.path.exists() and f"digest {self.digest}" in self.path.read_text()


# Learning rates and warmups


def schedule_pictures() -> Iterable[Picture]:
    """Yields a picture of each learning rate, and of each warmup in each mode."""
    for kind in own_types(LR_CLS):
        section = {"type": kind, kind: example(LR_CLS, kind)}
        yield Picture(f"lr_{kind}", {"": _points(section, None)}, draw_rate)
    for kind in own_types(WARMUP_CLS):
        fields = example(WARMUP_CLS, kind)
        curves = {
            mode: _points(_DECAY, {"type": kind, kind: {**fields, "mode": mode}}) for mode in MODES
        }
        yield Picture(f"warmup_{kind}", curves, draw_rate)
    curves = {"without a warmup": _points(_DECAY, None)}
    for mode in MODES:
        section = {"type": "linear", "linear": {"warmup_steps": "40%", "mode": mode}}
        curves[mode] = _points(_DECAY, section)
    yield Picture("warmup_modes", curves, draw_rate, (6.5, 3.0))


def _points(learning_rate: dict, warmup: dict | None) -> np.ndarray:
    """Returns the steps and the rates of a training."""
    config = OptimizationConfig(
        {"optimizer": {"type": "sgd"}, "learning_rate": learning_rate, "warmup": warmup or {}}
    )
    rate = config.learning_rate.get()
    if isinstance(rate, MetricLrConfig):
        return np.column_stack([_STEPS, _followed(rate)])
    factory = OptimizerFactory(config, train_steps=LENGTH)
    return np.column_stack([_STEPS, factory.learning_rate_curve(_STEPS)])


def _followed(config: MetricLrConfig) -> np.ndarray:
    """Returns the rates of a training whose loss falls until half of it, and then no more."""
    follower = config.follower([config.initial_learning_rate])
    rates = []
    for step in _STEPS:
        if step and step % 20 == 0:
            follower.step(math.exp(-min(step, LENGTH // 2) / 200))
        rates.append(follower.rates[0])
    return np.array(rates)


# Optimizers


def optimizer_pictures() -> Iterable[Picture]:
    """Yields the path of each optimizer through the valley."""
    for kind in own_types(OPTIMIZERS_CLS):
        yield Picture(f"optimizer_{kind}", {"": path_of(kind)[0]}, draw_path, (3.4, 2.5))


def path_of(kind: str) -> tuple[np.ndarray, float | None]:
    """Returns the way of a type through the valley, and its learning rate.

    Its rate is that of 1, 2 and 5 times the powers of ten with which it ends lowest, and stays in
    the picture; None is a rate that the optimizer makes itself.
    """
    rule = contracts.as_class(contracts.section_of(kind, {}))
    rates = _RATES if rule.own_learning_rate() is None else [None]
    with np.errstate(all="ignore"):  # what diverges is not the lowest
        paths = {rate: _descend(rule, rate) for rate in rates}
    best = min(paths, key=lambda rate: (not _is_inside(paths[rate]), _end(paths[rate])))
    return paths[best], best


def _is_inside(points: np.ndarray) -> bool:
    return bool(np.all((points > _FRAME[0]) & (points < _FRAME[1])))


def _end(points: np.ndarray) -> float:
    return float(np.nan_to_num(height(points[-10:]).mean(), nan=np.inf))


def height(points: np.ndarray) -> np.ndarray:
    """Returns the height of the valley at points."""
    away = points - BOTTOM
    return 0.5 * np.einsum("...i,ij,...j", away, _HESSIAN, away)


def _descend(rule: Any, rate: float | None) -> np.ndarray:
    """Returns the points of a descent; those of a diagonal, of a rule that is for matrices."""
    start = np.diag(START) if rule.goes_by_model else START

    def gradient(done: int, w: np.ndarray) -> np.ndarray:
        slope = _HESSIAN @ (_seen(w) - BOTTOM)
        return np.diag(slope) if w.ndim == 2 else slope

    own = contracts.settings_of(rule, {"dense/kernel": start.shape, "head/kernel": start.shape})
    own = own["dense/kernel"]
    steps = contracts.updates(rule, "dense/kernel", own, start, gradient, lambda t: rate, True)
    return np.array([START, *(_seen(w) for w, _ in itertools.islice(steps, UPDATES))])


def _seen(w: np.ndarray) -> np.ndarray:
    return np.diag(w) if w.ndim == 2 else w


# The order of a step


def step_picture() -> Picture:
    """Returns the picture of the stages of a step, as the table of docs/pipeline.md has them."""
    page = (FOLDER.parent / "pipeline.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
    places = {title: np.array([[int(number) - 1, 0.0]]) for number, title in rows}
    return Picture("step", places, draw_steps, (7.0, 2.6))


# Drawing


def draw_steps(axes: Any, curves: dict[str, np.ndarray]) -> None:
    """Draws a box for each stage, with arrows between them, in rows."""
    columns, arrow = 4, {"arrowstyle": "-|>", "color": "0.4", "shrinkA": 0, "shrinkB": 0}
    for place, title in enumerate(curves):
        x, y = place % columns, -(place // columns)
        text = textwrap.fill(f"{place + 1}  {title}", 19)
        axes.add_patch(_box(x, y))
        axes.text(x, y, text, ha="center", va="center", fontsize=7.5)
        if place % columns:
            axes.annotate("", (x - 0.42, y), (x - 0.58, y), arrowprops=arrow)
        elif place:
            axes.annotate("", (0, y + 0.34), (columns - 1, y + 0.66), arrowprops=arrow)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(-((len(curves) - 1) // columns) - 0.4, 0.4)
    axes.axis("off")


def _box(x: float, y: float) -> Any:
    """Returns a box around a point."""
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0.02"
    return FancyBboxPatch((x - 0.4, y - 0.3), 0.8, 0.6, style, facecolor="white", edgecolor="C0")


def draw_rate(axes: Any, curves: dict[str, np.ndarray]) -> None:
    """Draws rates over steps."""
    for name, points in curves.items():
        style = {"color": "0.6", "linestyle": "--"} if name.startswith("without") else {}
        axes.plot(*_bends(points).T, label=name, linewidth=1.5, **style)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlim(0, LENGTH)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("optimizer steps", fontsize=8)
    axes.set_ylabel("learning rate", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw_path(axes: Any, curves: dict[str, np.ndarray]) -> None:
    """Draws a path over the lines of equal height."""
    x, y = np.meshgrid(*np.linspace(*_FRAME, 40).T)
    levels = np.array([0.02, 0.15, 0.6, 1.5, 3.5, 8.0])
    heights = height(np.stack([x, y], axis=-1))
    axes.contour(x, y, heights, levels=levels, colors="0.8", linewidths=0.7)
    (points,) = curves.values()
    axes.plot(*points.T, color="C0", marker=".", markersize=3, linewidth=0.8)
    axes.plot(*START, "o", color="C1", markersize=4)
    axes.plot(*BOTTOM, "x", color="C3", markersize=6)
    axes.set_xlim(_FRAME[0][0], _FRAME[1][0])
    axes.set_ylim(_FRAME[0][1], _FRAME[1][1])
    axes.set_xticks([])
    axes.set_yticks([])


def _bends(points: np.ndarray) -> np.ndarray:
    """Leaves out points on a straight line between their neighbours."""
    before, after = np.diff(points[:-1], axis=0), np.diff(points[1:], axis=0)
    scale = np.abs(points[:, 1]).max()
    bent = np.abs(after[:, 1] - before[:, 1]) > 1e-9 * scale
    return points[[True, *bent, True]]


def save(picture: Picture) -> None:
    """Draws a picture into its file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": picture.name})
    figure, axes = pyplot.subplots(figsize=picture.size, layout="constrained")
    axes.tick_params(labelsize=7)
    picture.draw(axes, picture.curves)
    about = {"Description": f"digest {picture.digest}", "Date": None, "Creator": None}
    figure.savefig(picture.path, metadata=about)
    pyplot.close(figure)
    # Two digits behind the point are a seventieth of a millimetre.
    text = re.sub(r"(?<=\d\.\d\d)\d+", "", picture.path.read_text(encoding="utf-8"))
    picture.path.write_text(re.sub(r" +$", "", text, flags=re.MULTILINE), encoding="utf-8")


# Pages

_WRITTEN = "<!-- Written by `python -m tools.gallery`. -->\n"
_HEADS = {
    "learning_rates": """# Learning rates, drawn

Every type of `learning_rate`, over a training of 1,000 optimizer steps, with the settings that
stand below it. A type that follows a metric is drawn for a loss that falls until step 500 and is
evaluated every 20 steps.
""",
    "warmups": """# Warmups, drawn

Every type of `warmup`, over 400 of 1,000 optimizer steps, before a straight decay from 0.1 to 0, in
each `mode`. [Three warmups](../concepts/warmups.md) says what the modes are for.
""",
    "optimizers": """# Optimizers, drawn

Every type of `optimizer` with its default settings, 60 updates down the same valley: 20 times as
steep across as along, and askew, so that no axis is an easy one. The dot is the start, the cross is
the bottom. Each has a constant learning rate: of 1, 2 and 5 times the powers of ten, and of those
with which the path stays in the picture, the one with which the last ten updates are lowest on
average. The formulas run in NumPy, in float64, as they stand in `optimization/rules`; no framework
computes them.

A valley of two numbers says how a step is made, not which optimizer trains a network best. Muon is
for matrices: its path is that of the diagonal of one. The path of a schedule-free type is y, the
weights that gradients are taken at.
""",
}


def pages() -> dict[pathlib.Path, str]:
    """Returns the text of each page of the gallery, by its path."""
    return {
        FOLDER / "learning_rates.md": _page("learning_rates", LR_CLS, "learning_rate", "lr"),
        FOLDER / "warmups.md": _page("warmups", WARMUP_CLS, "warmup", "warmup"),
        FOLDER / "optimizers.md": _page("optimizers", OPTIMIZERS_CLS, "optimizer", "optimizer"),
    }


def _page(name: str, registry: Registry, section: str, prefix: str) -> str:
    parts = [_WRITTEN + _HEADS[name]]
    for kind in own_types(registry):
        title = f"## `{kind}`\n\n![{kind}]({prefix}_{kind}.svg)\n"
        what = f"{first_sentence(registry.config_class(kind))}"
        link = f"[Formula and fields](../reference/{name}.md#{kind})"
        if registry is OPTIMIZERS_CLS:
            rate = path_of(kind)[1]
            told = "its own learning rate" if rate is None else f"learning rate {rate:g}"
            parts.append(f"{title}\n{what} Drawn with {told}. {link}.\n")
        else:
            text = _flow({section: {"type": kind, kind: example(registry, kind)}})
            parts.append(f"{title}\n{what} {link}.\n\n```yaml\n{text}```\n")
    return "\n".join(parts)


def _flow(section: dict[str, Any]) -> str:
    """Returns a section as YAML, its fields on one line."""
    ((name, values),) = section.items()
    kind = values["type"]
    fields = ", ".join(f"{key}: {_value(value)}" for key, value in values[kind].items())
    branch = f"  {kind}: {{{fields}}}\n" if fields else ""
    return f"{name}:\n  type: {kind}\n{branch}"


def _value(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def own_types(registry: Registry) -> list[str]:
    """Returns the types of this package's own, sorted; those of transformers last."""
    classes = {name: entry.config_class for name, entry in registry.entries()}
    own = [name for name, cls in classes.items() if cls.__module__.startswith("optimization.")]
    return sorted(own, key=lambda name: (name.startswith("hf_"), name))


def pictures() -> list[Picture]:
    """Returns every picture of the gallery."""
    return [*schedule_pictures(), *optimizer_pictures(), step_picture()]


def main() -> None:
    """Writes the pages, and draws the pictures whose numbers have changed."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    found = pictures()
    for picture in found:
        if not picture.is_drawn():
            save(picture)
            print(f"drew {picture.path.name}")
    for path in set(FOLDER.glob("*.svg")) - {picture.path for picture in found}:
        path.unlink()


if __name__ == "__main__":
    main()
