"""What an experiment file holds beside its optimization section, checked as far as it is ours.

Model Garden's experiment files have keys that this package has not, and values that only Garden's
trainer knows; both are left alone. A key that is near one of ours, and a value that ours may not
have, are mistakes.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from optimization.configs.base import PYTHON, Change, Config
from optimization.configs.errors import Problem, did_you_mean
from optimization.configs.experiment_config import ExperimentConfig, RuntimeConfig, TrainerConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.yaml_file import SourcedDict

_GARDEN_KEYS = frozenset(
    [
        # Model Garden 2.20: its `ExperimentConfig`, `TrainerConfig` and `RuntimeConfig`,
        "restrictions",
        "train_tf_while_loop",
        "train_tf_function",
        "eval_tf_function",
        "eval_tf_while_loop",
        "allow_tpu_summary",
        "loss_upper_bound",
        "recovery_begin_steps",
        "recovery_max_trials",
        "preemption_on_demand_checkpoint",
        "gpu_thread_mode",
        "dataset_num_private_threads",
        "per_gpu_thread_count",
        "tpu",
        "num_gpus",
        "worker_hosts",
        "task_index",
        "all_reduce_alg",
        "num_packs",
        "batchnorm_spatial_persistent",
        "tpu_enable_xla_dynamic_padder",
        "num_cores_per_replica",
        "default_shard_dim",
        "use_tpu_mp_strategy",
        # and those that its projects add.
        "eval_tasks",
        "trainer_type",
        "task_sampler",
        "callbacks",
        "use_orbit",
        "enable_metrics_in_training",
        "time_history",
        "pipeline_sparse_and_dense_execution",
        "accumulation_steps",
        "best_ema_checkpoint_export_subdir",
        "best_ema_checkpoint_eval_metric",
        "best_ema_checkpoint_metric_comp",
    ]
)
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
        changes: list[Change] = []
        config._plan(section, getattr(params, "origins", {}).get(place, PYTHON), problems, changes)
    return problems


def _strange_keys(
    section: Mapping[str, Any], config_class: type[Config], place: str
) -> Iterator[Problem]:
    """Yields the keys that look like ours, or are ours elsewhere."""
    names = config_class.field_names()
    for key in section:
        if key in names or key in _GARDEN_KEYS:
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
    sections = {
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
