"""What an experiment file holds beside its optimization section, checked as far as it is ours.

Model Garden's experiment files have keys that this package has not, and values that only Garden's
trainer knows; both are left alone. A key that is near one of ours, and a value that ours may not
have, are mistakes.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from optimization.configs.base import Config
from optimization.configs.errors import PYTHON, Problem, did_you_mean
from optimization.configs.experiment_config import (
    GARDEN_KEYS,
    ExperimentConfig,
    RuntimeConfig,
    TrainerConfig,
)
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.planning import Plan
from optimization.configs.yaml_file import SourcedDict

_GARDEN_VALUES = {"distribution_strategy": ("tpu", "parameter_server", "off", False)}
_NEAR = 0.8  # `trian_steps` and `num_train_steps` are near `train_steps`; `eval_steps` is not


def surroundings(params: Mapping[str, Any]) -> list[Problem]:
    """Returns what is wrong in an experiment file outside of `optimizer_config` and `task`.

    Only values by themselves are checked: what belongs together, the experiment may complete.
    """
    problems = list(_strange_keys(params, ExperimentConfig, ""))
    for place, config_class in (("trainer", TrainerConfig), ("runtime", RuntimeConfig)):
        section = params.get(place, {})
        if isinstance(section, Mapping):
            problems += _strange_keys(section, config_class, place)
            section = _ours(section, config_class)
        elif place == "trainer":  # whoever looks for the optimization section says it
            continue
        config = config_class()
        config._move(place)
        plan = Plan()
        plan.add(config, section, getattr(params, "origins", {}).get(place, PYTHON))
        problems += plan.problems
    return problems


def _strange_keys(
    section: Mapping[str, Any], config_class: type[Config], place: str
) -> Iterator[Problem]:
    """Yields the keys that look like ours, or are ours elsewhere."""
    names = config_class.field_names()
    for key in section:
        if key in names or key in GARDEN_KEYS:
            continue
        place_of_key = _places().get(key)
        hint = did_you_mean(str(key).lower(), names, _NEAR)
        if place_of_key:
            hint = f"; did you mean {place_of_key!r}?"
        if hint:
            path = f"{place}.{key}" if place else str(key)
            origin = getattr(section, "origins", {}).get(key)
            yield Problem("unknown-key", path, f"unknown key{hint}", origin)


@cache
def _places() -> dict[str, str]:
    """Returns the path of every key of an experiment, but for the task's."""
    sections: dict[str, type[Config]] = {
        "trainer.optimizer_config.": OptimizationConfig,
        "runtime.": RuntimeConfig,
        "trainer.": TrainerConfig,
        "": ExperimentConfig,
    }
    return {n: place + n for place, config in sections.items() for n in config.field_names()}


def _ours(section: Mapping[str, Any], config_class: type[Config]) -> SourcedDict:
    """Returns the settings that are ours, without the optimization section, read elsewhere."""
    result = SourcedDict()
    for key, value in section.items():
        foreign = isinstance(value, str | bool) and value in _GARDEN_VALUES.get(key, ())
        if key in config_class.field_names() and key != "optimizer_config" and not foreign:
            result.put(key, value, getattr(section, "origins", {}).get(key, PYTHON))
    return result
