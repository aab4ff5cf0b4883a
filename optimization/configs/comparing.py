"""Compares two configs as they train: their values, and the curves of their learning rates."""

import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from optimization.configs.base import Config
from optimization.configs.batches import batch_without_rate
from optimization.configs.difference import ABSENT, Change, CurveChange, Difference
from optimization.configs.durations import TrainingLength, unknown_lengths
from optimization.configs.errors import Origin
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.leaves import leaves
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import Place, RateCurve, curve_of, places
from optimization.configs.tree import Node, configs_in

if typing.TYPE_CHECKING:
    import numpy as np

ConfigT = TypeVar("ConfigT", bound=Config)

UNKNOWN = TrainingLength()
_MOST = 200_000  # steps that are looked at between bends
_LAST = 2**53  # as far as steps are exact in float64


def difference(before: Config, after: Config, length: TrainingLength = UNKNOWN) -> Difference:
    """Returns what differs between two configs, with defaults filled in and steps as numbers.

    Args:
        before: A config.
        after: Another one of the same class.
        length: How long is trained, where the configs don't say it.

    Raises:
        TypeError: If the two are of different classes.
    """
    if type(before) is not type(after):
        names = f"{type(before).__name__} and {type(after).__name__}"
        hint = "; `load_optimization_config` reads a file" if isinstance(after, str) else ""
        raise TypeError(f"{names} cannot be compared{hint}")
    before, after = in_training(before, length), in_training(after, length)
    curves = tuple(_curves(before, after))
    notes = list(_not_compared(before, after))
    if isinstance(before, ExperimentConfig) and isinstance(after, ExperimentConfig):
        notes += map(str, batch_without_rate(before, after))
    return Difference(tuple(_changes(before, after)), curves, tuple(notes))


def _changes(before: Node, after: Node) -> Iterator[Change]:
    """Yields the values that differ; of types that only one has, those that are no defaults."""
    old, new = dict(before._items()), dict(after._items())
    for name in dict.fromkeys([*old, *new]):
        sides = [dict(configs_in(side[name])) for side in (old, new) if name in side]
        if len(sides) == 2 and [*sides[0]] == [*sides[1]] != []:
            for place, child in sides[0].items():
                yield from _changes(child, sides[1][place])
        elif len(sides) == 2:
            if old[name] != new[name]:
                at = [_at(c, name) for c in (before, after)]
                yield Change(before._join(name), old[name], new[name], *at)
        elif isinstance(old.get(name, new.get(name)), Node):
            yield from _of_one(old.get(name), new.get(name))
        else:  # left out where it is not set
            at = [_at(c, name) for c in (before, after)]
            yield Change(before._join(name), old.get(name), new.get(name), *at)


def _of_one(before: Node | None, after: Node | None) -> Iterator[Change]:
    """Yields what a branch changes from its defaults, which the other config has not selected."""
    for leaf in leaves(before) if before is not None else ():
        if not leaf.is_default:
            yield Change(leaf.path, leaf.value, ABSENT, _at(leaf.holder, leaf.name))
    for leaf in leaves(after) if after is not None else ():
        if not leaf.is_default:
            yield Change(leaf.path, ABSENT, leaf.value, None, _at(leaf.holder, leaf.name))


def _at(config: Node, name: str) -> Origin | None:
    return config._origins.get(name)


def in_training(config: ConfigT, length: TrainingLength = UNKNOWN) -> ConfigT:
    """Returns a copy with steps as numbers, as far as the length of the training is known.

    Of an experiment that is its own length, and `length` is not used.
    """
    twin: Any = config.replace()
    if isinstance(config, ExperimentConfig):
        sized, problems = config.told_trainer().sized_optimizer_config()
        twin.trainer.__dict__["optimizer_config"] = (
            sized if problems else config.sized_optimizer_config()
        )
    elif isinstance(config, OptimizationConfig):
        twin, _ = config.sized(length)
    return twin


def optimization_of(config: Config) -> Any:
    """Returns the optimization section of a config, or the config if it is that; None for none."""
    if isinstance(config, ExperimentConfig):
        return config.trainer.optimizer_config
    return config if isinstance(config, OptimizationConfig) else None


def _pairs(before: Config, after: Config) -> Iterator[tuple[str, list[Any], list[Place]]]:
    """Yields the learning rates that both have: the path, both sections, and what each is in."""
    sections = [optimization_of(config) for config in (before, after)]
    if sections[0] is None or sections[1] is None:
        return
    found = [{p.learning_rate._path: (s, p) for p in places(s)} for s in sections if s is not None]
    for path in [path for path in found[0] if path in found[1]]:
        pair = [side[path] for side in found]
        if all(place.learning_rate.type is not None for _, place in pair):
            yield path, [section for section, _ in pair], [place for _, place in pair]


def _computed(config: OptimizationConfig, place: Place) -> RateCurve | None:
    """Returns the curve of a place's own rate; None where NumPy can't compute it as it stands."""
    curve = curve_of(config, place)
    return curve if curve is not None and curve.is_computable(config._train_steps) else None


def _curves(before: Config, after: Config) -> Iterator[CurveChange]:
    for path, sections, pair in _pairs(before, after):
        curves = [_computed(s, p) for s, p in zip(sections, pair, strict=True)]
        known_curves = [curve for curve in curves if curve is not None]
        if len(known_curves) == 2:
            steps = max(section._train_steps or 0 for section in sections)
            yield _furthest(path, known_curves, steps)


def _not_compared(before: Config, after: Config) -> Iterator[str]:
    for path, sections, pair in _pairs(before, after):
        if all(_computed(s, p) is not None for s, p in zip(sections, pair, strict=True)):
            continue
        why = "NumPy cannot compute one of the two curves"
        if any(unknown_lengths(s) for s in sections):
            why = "the length of the training is not known: give `train_steps`"
        yield f"{path}: the rates are not compared; {why}"


def _furthest(path: str, curves: list[RateCurve], train_steps: int) -> CurveChange:
    """Compares two rates at all their bends, and at every step between or evenly many."""
    bends = {min(step, _LAST) for curve in curves for step in curve.steps(train_steps or None)}
    low, high = 0, max(bends)
    last, steps = high, _with(_between(low, high), *sorted(bends))
    at = _argmax(curves, steps)
    while high - low >= _MOST:  # then closer around the largest difference, to every step there
        low, high = int(steps[max(at - 1, 0)]), int(steps[min(at + 1, len(steps) - 1)])
        steps = _with(_between(low, high), int(steps[at]))
        at = _argmax(curves, steps)
    step = int(steps[at])
    before, after = (curve.values([step])[0] for curve in curves)
    return CurveChange(path, last + 1, step, before, after)


def _between(low: int, high: int) -> "np.ndarray":
    """Returns every step from one to another, or evenly many."""
    import numpy as np

    return np.linspace(low, high, min(high - low + 1, _MOST)).astype(np.int64)


def _with(steps: "np.ndarray", *more: int) -> "np.ndarray":
    """Returns ascending steps with a few more, each once; `np.union1d` sorts all of them anew."""
    import numpy as np

    merged = np.insert(steps, np.searchsorted(steps, more), more)
    return merged[np.diff(merged, prepend=-1) > 0]


def _argmax(curves: list[RateCurve], steps: "np.ndarray") -> int:
    import numpy as np

    from optimization.schedules.compose import curve

    values = []
    for each in curves:
        done = np.maximum(steps - each.start, 0)
        rate = curve(each.learning_rate, each.warmup, done)
        values.append(each.factor * rate / (1 + each.decay * done))
    return int(np.argmax(np.abs(values[1] - values[0])))
