"""How configs show themselves in notebooks: the curve, and the settings as a table."""

from collections.abc import Iterator
from html import escape
from typing import Any

from optimization.configs.base import Config
from optimization.configs.documentation import value_text
from optimization.configs.errors import DEFAULT as DEFAULT_ORIGIN
from optimization.configs.errors import ConfigError, known
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.oneof import OneOfConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import RateCurve
from optimization.configs.tree import configs_in
from optimization.configs.types import REQUIRED
from optimization.plots.curves import line_of_rate
from optimization.plots.drawing import drawn_together, picture_of_all
from optimization.plots.picture import Picture
from optimization.plots.svg import svg
from optimization.schedules.base import BaseLrConfig, BaseWarmupConfig
from optimization.schedules.constant import ConstantLrConfig

_CELL = 'style="text-align:left;padding:1px 12px 1px 0;font-family:monospace"'


def html_of(config: Config) -> str:
    """Returns a config as HTML: its curve if it has one, what was set, and the rest folded away.

    What keeps the curve from being drawn is said in its place; nothing is raised.
    """
    rows = list(_rows(config, ""))
    changed, usual = ([row for row, other in rows if other is kind] for kind in (True, False))
    folded = f"<details><summary>defaults</summary>{_table(usual)}</details>" if usual else ""
    name = f"<div><b>{escape(type(config).__name__)}</b></div>"
    return f"<div>{name}{_curve(config)}{_table(changed)}{folded}</div>"


def html_of_rate(name: str, curve: RateCurve) -> str:
    """Returns a learning rate, with all that acts on it, as HTML."""
    tables = [_table([r for r, is_set in _rows(c, "") if is_set]) for c in curve[:2] if c]
    title = f"<div><b>{escape(name)}</b></div>"
    try:
        drawing = svg(drawn_together([line_of_rate(curve, name)]))
    except ConfigError as error:
        drawing = _told(error)
    return f"<div>{title}{drawing}{''.join(tables)}</div>"


def _curve(config: Config) -> str:
    try:
        picture = _picture(config)
    except ConfigError as error:
        return _told(error)
    return "" if picture is None else svg(picture)


def _picture(config: Config) -> Picture | None:
    if isinstance(config, ExperimentConfig):
        config = config.told_trainer().sized_optimizer_config()[0]
    if isinstance(config, OptimizationConfig):
        return picture_of_all(config)
    if isinstance(config, OneOfConfig) and config.type is not None:
        config = config.get()
    name = getattr(config, "name", None) or type(config).__name__
    if isinstance(config, BaseLrConfig):
        return drawn_together([line_of_rate(RateCurve(config), name)])
    if isinstance(config, BaseWarmupConfig):
        curve = RateCurve(ConstantLrConfig(learning_rate=1.0), config)
        return drawn_together([line_of_rate(curve, name)], "warmup to a learning rate of 1")
    return None


def _rows(config: Any, path: str) -> Iterator[tuple[tuple[str, str, str], bool]]:
    """Yields a path, its value and where that was written, and whether it is no default."""
    changed = dict(config._changed())
    for name, value in config._items():
        held = list(configs_in(value))
        for place, inner in held:
            yield from _rows(inner, f"{path}{name}{place}.")
        if not held:
            origin = known(config._origins.get(name, DEFAULT_ORIGIN))
            row = (f"{path}{name}", _shown(value), "" if origin is None else str(origin))
            yield row, name in changed


def _shown(value: Any) -> str:
    return "required, not set" if value is REQUIRED else value_text(value)


def _table(rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    lines = ("".join(f"<td {_CELL}>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _told(error: ConfigError) -> str:
    lines = "<br>".join(escape(str(problem)) for problem in error.problems)
    return f"<p>No curve: {lines}</p>"
