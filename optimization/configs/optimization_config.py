"""`OptimizationConfig`: the optimizer, its learning rate, its warmup, and weight averaging."""

import dataclasses
import os
from collections.abc import Mapping
from typing import TypeVar

from optimization.configs import yaml_file
from optimization.configs.base import Config
from optimization.configs.errors import (
    ConfigError,
    Origin,
    Problem,
    describe,
    did_you_mean,
)
from optimization.configs.group_config import (
    LayerDecayConfig,
    LrScalingConfig,
    ParamGroupConfig,
)
from optimization.configs.layers import layered, settle
from optimization.configs.optimizer_config import BaseOptimizerConfig, EMAConfig, OptimizerConfig
from optimization.configs.types import ReadOnlyDict
from optimization.configs.yaml_file import SourcedDict
from optimization.schedules import LrConfig, WarmupConfig
from optimization.schedules.compose import (
    curve,
    needs_keras,
    schedule_conflicts,
    schedule_problems,
)

_SECTION = ("trainer", "optimizer_config")


@dataclasses.dataclass
class OptimizationConfig(Config):
    """Everything that decides how weights are updated.

    Attributes:
        optimizer: The optimizer, a oneof; required.
        ema: The moving average of the weights; None for none.
        learning_rate: The learning rate, a oneof; required.
        warmup: The warmup of the learning rate, a oneof; `type` None for none.
        param_groups: Settings of their own for some of the variables; the first rule that matches
            a variable wins, what no rule matches has the settings above.
        layer_decay: Learning rates that fall from the head to the first layers; None for none.
        schedules: Hyperparameters of the optimizer that follow a schedule, by name; each is a
            oneof as `learning_rate` is. `weight_decay` stands for whatever the optimizer calls it.
        lr_scaling: A learning rate in proportion to the batch; None for one that is as written.
    """

    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    ema: EMAConfig | None = None
    learning_rate: LrConfig = dataclasses.field(default_factory=LrConfig)
    warmup: WarmupConfig = dataclasses.field(default_factory=WarmupConfig)
    param_groups: tuple[ParamGroupConfig, ...] = ()
    layer_decay: LayerDecayConfig | None = None
    schedules: dict[str, LrConfig] = dataclasses.field(default_factory=ReadOnlyDict)
    lr_scaling: LrScalingConfig | None = None

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings; a missing `type` is the error of its oneof."""
        problems, doubts = super().problems()
        for name in ("optimizer", "learning_rate"):
            section = getattr(self, name)
            if section.type is None:
                message = "a type is required, none was given; the types are "
                message += ", ".join(section.branches())
                problems.insert(0, section._problem("missing", "type", message))
        if not problems:
            problems += self._conflicts()
        return problems, doubts

    def _conflicts(self) -> list[Problem]:
        problems = []
        for pair in (self, *self.param_groups):
            if pair.warmup.type is not None and pair.learning_rate.type is not None:
                problems += schedule_conflicts(pair.learning_rate.get(), pair.warmup.get())
        section = self.optimizer.get()
        problems += self._zero_rate(section)
        for name, schedule in self.schedules.items():
            place = f"schedules.{name}"
            if section.argument_name(name) is None:
                near = did_you_mean(name, section.numbers())
                message = f"`{self.optimizer.type}` has no such number{near}"
                problems.append(self._problem("unknown-key", place, message))
            elif schedule.type is None:
                problems.append(self._problem("missing", f"{place}.type", "a type is required"))
        for group in self.param_groups:
            own = group.optimizer.get() or section
            if group.weight_decay is not None and own.argument_name("weight_decay") is None:
                message = f"`{group.optimizer.type or self.optimizer.type}` has no weight decay"
                problems.append(group._problem("conflict", "weight_decay", message))
        return problems

    def _zero_rate(self, section: BaseOptimizerConfig) -> list[Problem]:
        """Returns a problem if the training starts with a rate by which its optimizer divides."""
        rate, warmup = self.learning_rate.get(), self.warmup.get()
        if not section.divides_by_rate or schedule_problems(rate, warmup):
            return []
        if needs_keras(rate, warmup) or curve(rate, warmup, [0])[0] > 0:
            return []
        message = f"`{self.optimizer.type}` divides by the learning rate, which is 0 at step 0"
        return [
            (self.learning_rate if warmup is None else self.warmup)._problem(
                "conflict", "type", message
            )
        ]


ConfigT = TypeVar("ConfigT", bound=OptimizationConfig)


def optimization_section(params: Mapping, source: str = "") -> tuple[SourcedDict, str]:
    """Finds the optimization section of an experiment file, or takes the mapping as one.

    Args:
        params: What a file holds: an experiment, with `trainer.optimizer_config`, as Model Garden
            and this package write them, or the section alone. Only that section is looked at.
        source: The file's name, for messages.

    Returns:
        The section and its dotted path, "" where the file is the section.

    Raises:
        ConfigError: If the way to the section is no mapping.
    """
    if not {"trainer", "task", "runtime"} & set(params):
        return params, ""
    section, path = params, ""
    for name in _SECTION:
        path = f"{path}.{name}" if path else name
        origin = getattr(section, "origins", {}).get(name, Origin(source))
        section = section.get(name)
        if section is None:
            message = "is not there: the file sets nothing about optimization"
            raise ConfigError([Problem("missing", path, message, origin)])
        if not isinstance(section, Mapping):
            message = f"expected a mapping, got {describe(section)}"
            raise ConfigError([Problem("type", path, message, origin)])
    return section, path


def load_optimization_config(
    *paths: str | os.PathLike,
    base: OptimizationConfig | None = None,
) -> OptimizationConfig:
    """Reads the optimization part of experiment files, or files that are that part.

    Args:
        *paths: YAML files, later ones win. The task, model and runtime sections of an experiment
            file are left alone.
        base: What the files are layered on, such as the section of a registered experiment.

    Returns:
        A validated config.

    Raises:
        ConfigError: Every mistake of every file, and of the result.
    """
    config = OptimizationConfig() if base is None else base
    problems: list[Problem] = []
    for path in paths:
        params, found = yaml_file.read_file(path)
        problems += found
        try:
            section, place = optimization_section(params, os.fspath(path))
        except ConfigError as error:
            # A layer among others may say nothing about optimization.
            alone = len(paths) == 1 and base is None
            problems += [p for p in error.problems if alone or p.code != "missing"]
            continue
        config, found = layered(config, [section], place)
        problems += found
    return settle(config, problems)
