"""The group table of names and shapes alone: what a config makes of them, without a framework."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from optimization.configs.auxiliary_groups import Group
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import RateCurve, curve_of
from optimization.matching.group_table import GroupRow
from optimization.matching.names import Shapes
from optimization.matching.patterns import check_matches
from optimization.matching.rules import DEFAULT, assigned
from optimization.matching.rules import Rule as Matcher
from optimization.rules.rule import Numbers, Rule, given


def group_rows(config: OptimizationConfig, shapes: Shapes) -> list[GroupRow]:
    """Returns what each parameter would be trained with, as `PipelineOptimizer.group_table` does.

    >>> config = OptimizationConfig({
    ...     "optimizer": {"type": "adamw", "adamw": {"exclude_from_weight_decay": ["bias"]}},
    ...     "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.5}},
    ... })
    >>> [row.marks for row in group_rows(config, {"head/kernel": (8, 3), "head/bias": (3,)})]
    ['decayed', '']

    Args:
        config: A config that is valid. Rates are NaN where steps are no numbers yet.
        shapes: The parameters that are trained, in the order of the model.

    Raises:
        ValueError: For rules and patterns that match no parameter, for a group by `layer_type`,
            which names do not tell, and for a shape that is needed and not known.
    """
    groups, paths = config.groups(), list(shapes)
    matchers: list[Matcher] = [matcher for group in groups for matcher in (group, *group.also)]
    for matcher in matchers:
        if matcher.layer_type is not None:
            message = "names say nothing of the types of layers; give the model by --experiment"
            raise ValueError(f"The parameter group {matcher.label!r} has a `layer_type`: {message}")
    needs = [f"the group {each.label!r} goes by `ndim`" for each in matchers if each.ndim]
    rules = [config.optimizer.get(), *(group.optimizer.get() for group in groups)]
    needs += [f"{rule.name} goes by shapes" for rule in rules if getattr(rule, "goes_by_model", 0)]
    unknown = [path for path, shape in shapes.items() if shape is None]
    if needs and unknown:
        raise ValueError(f"{needs[0]}, and {unknown[0]!r} has no shape: write `path [8, 3]`")
    known = {path: shape or () for path, shape in shapes.items()}
    ndims, left = [len(known[p]) for p in paths], operator.methodcaller("left", known)
    owners = assigned(groups, paths, ndims, [None] * len(paths), left)
    if all(owner is not None and owner.freeze for owner in owners):
        raise ValueError("Every parameter is frozen by a parameter group: nothing can learn.")
    factors = [1.0] * len(paths)
    if config.layer_decay is not None:
        factors = [factor for _, factor in config.layer_decay.multipliers(paths)]
    rows: dict[str, GroupRow] = {}
    for place in (None, *groups):
        own = {p: f for p, o, f in zip(paths, owners, factors, strict=True) if o is place}
        rows |= _rows(config, place, own, known, shapes)
    return [rows[path] for path in paths]


def _rows(
    config: OptimizationConfig,
    group: Group | None,
    factors: Mapping[str, float],
    known: Mapping[str, tuple[int, ...]],
    shapes: Shapes,
) -> dict[str, GroupRow]:
    """Returns the rows of one group, by path; `factors` are those of the layers."""
    frozen = group is not None and group.freeze
    section = _section(config, group)
    settings: Sequence[Mapping[str, Any]] = [{}] * len(factors)
    if isinstance(section, Rule) and not frozen:
        for argument, patterns in section.patterns().items():
            check_matches(patterns, list(known), argument)
        settings = section.all_settings(list(factors), known)
    now, highest = (0.0, 0.0) if frozen else _rates(config, group)
    averaged = config.average_arguments() is not None or section.schedule_free
    rows = {}
    for (path, factor), own in zip(factors.items(), settings, strict=True):
        multiplier = factor * (group.learning_rate_multiplier if group else 1.0)
        shape = shapes[path]
        rows[path] = GroupRow(
            path=path,
            group=DEFAULT if group is None else group.label,
            rule="" if group is None else group.matcher,
            optimizer="" if frozen else str(_type(config, group)),
            multiplier=0.0 if frozen else multiplier,
            learning_rate=multiplier * now,
            highest_rate=None if highest is None else multiplier * highest,
            decayed=not frozen and _is_decayed(section, path, own),
            frozen=frozen,
            averaged=averaged and not frozen,
            orthogonalized=own.get("orthogonalized"),
            parameters=None if shape is None else math.prod(shape),
            freeze_steps=0 if group is None else group.freeze_steps,
        )
    return rows


def _type(config: OptimizationConfig, group: Group | None) -> str | None:
    own = None if group is None else group.optimizer.type
    return own or config.optimizer.type


def _section(config: OptimizationConfig, group: Group | None) -> Any:
    """Returns the optimizer's section, with the weight decay of the group."""
    own = None if group is None else group.optimizer.get()
    section = own or config.optimizer.get()
    if group is None or group.weight_decay is None:
        return section
    return section.replace(**{section.argument_name("weight_decay"): group.weight_decay})


def _is_decayed(section: Any, path: str, own: Mapping[str, Any]) -> bool:
    if not isinstance(section, Rule):
        return bool(getattr(section, "weight_decay", None))
    fields = {name: getattr(section, name) for name in section.argument_names()}
    numbers = Numbers(**{**fields, **section.variable_settings, **own})
    return section.decays(path) and any(map(given, section.decay_rates(numbers)))


def _rates(config: OptimizationConfig, group: Group | None) -> tuple[float, float | None]:
    """Returns the rate at the start and the highest, without multipliers; NaN if not known."""
    has_own = group is not None and config.learning_rate_of(group) is not None
    place = group if group is not None and has_own else config
    curve = curve_of(config, place)
    if curve is None:
        curve = RateCurve(*(config.learning_rate_of(group) or config.learning_rate_of()))
    if not curve.is_computable():
        return math.nan, None
    own = 1.0 if group is None or not has_own else group.learning_rate_multiplier or 1.0
    values = curve.values(curve.steps())
    return values[0] / own, max(values) / own
