"""What an experiment file says where its experiment is not known: what of it is ours, and mistakes.

Such a file may be that of Model Garden, with keys that only its trainer has; a task is anybody's.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from optimization.configs.base import Config
from optimization.configs.errors import PYTHON, Problem, after_comma, did_you_mean, known
from optimization.configs.experiment_config import (
    GARDEN_KEYS,
    ExperimentConfig,
    RuntimeConfig,
    TrainerConfig,
)
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.overrides import put
from optimization.configs.planning import Plan
from optimization.configs.yaml_file import SourcedDict

_GARDEN_VALUES = {"distribution_strategy": ("tpu", "parameter_server", "off", False)}
_NEAR = 0.8  # `trian_steps` and `num_train_steps` are near `train_steps`; `eval_steps` is not


def surroundings(params: Mapping[str, Any]) -> list[Problem]:
    """Returns what is wrong in an experiment file outside of `optimizer_config` and `task`.

    Keys that this package has not, and values that only Garden's trainer knows, are left alone;
    mistakes are a key that is near one of ours, and a value that ours may not have. Only values by
    themselves are checked: what belongs together, the experiment may complete.
    """
    _, problems = _sorted(params, ExperimentConfig, "")
    for place, config_class in (("trainer", TrainerConfig), ("runtime", RuntimeConfig)):
        section = params.get(place, {})
        if isinstance(section, Mapping):
            section, strange = _sorted(section, config_class, place)
            problems += strange
        elif place == "trainer":  # whoever looks for the optimization section says it
            continue
        config = config_class()
        config._move(place)
        plan = Plan(problems)
        plan.add(config, section, getattr(params, "origins", {}).get(place, PYTHON))
        problems = plan.problems
    return problems


def own_settings(params: Mapping[str, Any]) -> tuple[SourcedDict, list[Problem]]:
    """Returns what an experiment file sets of ours where its task is not known, and its mistakes.

    That is its trainer, without what only Model Garden's has, its runtime, and of the task the size
    of the training batch. Mistakes are keys near one of ours.
    """
    ours, problems = _sorted(params, ExperimentConfig, "")
    for place, config_class in (("trainer", TrainerConfig), ("runtime", RuntimeConfig)):
        section = ours.get(place)
        if isinstance(section, SourcedDict):
            own, strange = _sorted(section, config_class, place)
            problems += strange
            if (name := "optimizer_config") in section:
                own.put(name, section[name], section.origins[name])
            ours.put(place, own, ours.origins[place])
    data: Any = ours.pop("task", None)
    for name in ("train_data", "global_batch_size"):
        data, origins = (
            (data.get(name), data.origins) if isinstance(data, SourcedDict) else ({}, {})
        )
    if isinstance(data, int):
        put(ours, "task.train_data.global_batch_size", data, origins["global_batch_size"])
    return ours, problems


def _sorted(
    section: Mapping[str, Any], config_class: type[Config], place: str
) -> tuple[SourcedDict, list[Problem]]:
    """Returns the settings that are ours, and the keys that look like ours, or are ours elsewhere.

    The optimization section is read elsewhere.
    """
    ours, problems, names = SourcedDict(), [], config_class.field_names()
    for key, value in section.items():
        origin = getattr(section, "origins", {}).get(key, PYTHON)
        foreign = isinstance(value, str | bool) and value in _GARDEN_VALUES.get(key, ())
        if key in names:
            if key != "optimizer_config" and not foreign:
                ours.put(key, value, origin)
        elif key not in GARDEN_KEYS:
            elsewhere = _places().get(key)
            hint = f"; did you mean {elsewhere!r}?" if elsewhere else ""
            hint = hint or after_comma(key) or did_you_mean(str(key).lower(), names, _NEAR)
            if hint:
                path = f"{place}.{key}" if place else str(key)
                problems.append(Problem("unknown-key", path, f"unknown key{hint}", known(origin)))
    return ours, problems


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
