"""`OptimizationConfig`: the optimizer, its learning rate, its warmup, and weight averaging."""

import numbers
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar, overload

from optimization.configs import conflicts, curve_checks, yaml_file
from optimization.configs.auxiliary_groups import Group, groups_of
from optimization.configs.base import Config
from optimization.configs.durations import TrainingLength, shares, with_length
from optimization.configs.errors import ConfigError, Origin, Problem, describe
from optimization.configs.fields import Section, SectionMap, Sections, field
from optimization.configs.group_config import LayerDecayConfig, LrScalingConfig, ParamGroupConfig
from optimization.configs.layers import layered, settle
from optimization.configs.optimizer_config import EMAConfig, OptimizerConfig
from optimization.configs.other_words import our_word
from optimization.configs.ramp import AccumulationConfig, Ramp
from optimization.configs.rate_curve import fill_peaks
from optimization.configs.rate_scaling import as_scaled
from optimization.configs.spike_config import SkipSpikesConfig, ZClipConfig
from optimization.configs.types import ReadOnlyDict
from optimization.schedules import BaseLrConfig, BaseWarmupConfig, LrConfig, WarmupConfig

Rate = tuple[BaseLrConfig, BaseWarmupConfig | None]
"""A learning rate and its warmup."""


class OptimizationConfig(Config):
    """Describes how weights are updated: the optimizer, its learning rate, warmup and averages.

    >>> config = OptimizationConfig({
    ...     "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
    ...     "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
    ...     "warmup": {"type": "linear", "linear": {"warmup_steps": "5%"}},
    ... })
    >>> config.validate()
    []
    >>> config.learning_rate.cosine.decay_steps
    'remaining'

    Attributes:
        optimizer: The optimizer, a oneof; required.
        ema: The moving average of the weights; None for none.
        learning_rate: The learning rate, a oneof; required, except by an optimizer that has one
            of its own, as Adafactor with a relative step has.
        warmup: The warmup of the learning rate, a oneof; `type` None for none.
        param_groups: Settings of their own for some of the variables; the first rule that matches
            a variable wins, what no rule matches has the settings above.
        layer_decay: Learning rates that fall from the head to the first layers; None for none.
        schedules: Hyperparameters of the optimizer that follow a schedule, by name; each is a
            oneof as `learning_rate` is. `weight_decay` stands for whatever the optimizer calls it;
            `average_decay` is that of `ema`, `ema_momentum` that of `use_ema`.
        lr_scaling: A learning rate in proportion to the batch; None for one that is as written.
        accumulation: Accumulates more micro-batches as the training goes on; None for as many as
            `gradient_accumulation_steps` of the optimizer in each update.
        zclip: A clip of gradients whose norm is an outlier of the running norms; None for none.
        skip_spikes: Leaves out updates whose gradient norm or loss is far above the recent ones;
            None for none.
    """

    _LEFT_OUT: ClassVar[tuple[str, ...]] = ("accumulation", "zclip", "skip_spikes")

    optimizer: Section[OptimizerConfig] = field(default_factory=OptimizerConfig)
    ema: Section[EMAConfig | None] = field(default=None)
    learning_rate: Section[LrConfig] = field(default_factory=LrConfig)
    warmup: Section[WarmupConfig] = field(default_factory=WarmupConfig)
    param_groups: Sections[ParamGroupConfig] = field(default=())
    layer_decay: Section[LayerDecayConfig | None] = field(default=None)
    schedules: SectionMap[LrConfig] = field(default_factory=ReadOnlyDict)
    lr_scaling: Section[LrScalingConfig | None] = field(default=None)
    accumulation: Section[AccumulationConfig | None] = field(default=None)
    zclip: Section[ZClipConfig | None] = field(default=None)
    skip_spikes: Section[SkipSpikesConfig | None] = field(default=None)

    # Set by `sized`: how long is trained, what was written as a share of that, and the step at
    # which all schedules start.
    _train_steps: ClassVar[int | None] = None
    _shares: ClassVar[frozenset[str]] = frozenset()
    _schedule_start: ClassVar[int] = 0

    def sized(self, length: TrainingLength) -> tuple[Self, list[Problem]]:
        """Returns a copy, not locked, in which steps are numbers, as `with_length` does.

        The copy knows the length of the training, by which its curves are checked. A length that
        is not known leaves that of an earlier `sized` as it is.
        """
        # With `accumulation` the batch of an update is none of the data's.
        scaling = self.lr_scaling if self.accumulation is None else None
        if length.global_batch_size is None and scaling is not None:
            length = length._replace(global_batch_size=scaling.global_batch_size)
        sized, problems = with_length(self, length)
        sized.__dict__["_train_steps"] = length.train_steps or self._train_steps
        sized.__dict__["_shares"] = self._shares.union(shares(self))
        sized.__dict__["_schedule_start"] = length.start or self._schedule_start
        return sized, problems

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings; a missing `type` is the error of its oneof."""
        problems, doubts = super().problems()
        for name in ("optimizer", "learning_rate"):
            section = getattr(self, name)
            if section.type is not None or section.untyped_branches():
                continue
            optimizer = self.optimizer.get()
            if name == "optimizer" or not (optimizer and optimizer.own_learning_rate()):
                message = "a type is required, none was given; the types are "
                message += ", ".join(section.branches())
                problems.insert(0, section._problem("missing", "type", message))
        if not problems:
            problems += conflicts.conflicts(self)
        wrong_curves, doubtful_curves = curve_checks.judge(self)
        return problems + wrong_curves, doubts + doubtful_curves

    def _unknown(self, name: Any, rest: str = "") -> str:
        if name == "optimizer_config":
            return "unknown key; write it under `trainer`, or what it holds without it"
        if name in ("train_steps", "steps_per_epoch"):
            others = "the other keys under `trainer.optimizer_config`"
            return f"unknown key; write it under `trainer`, and {others}"
        if not self._places_below(name) and not our_word(name, self.field_names()):
            for place in ("warmup", "learning_rate", "optimizer"):
                if any(name in branch.field_names() for branch in getattr(self, place).classes()):
                    return f"unknown key; write it as `{place}: {{TYPE: {{{name}: ...}}}}`"
        return super()._unknown(name, rest)

    def _section_to_write(self, value: Any) -> str:
        if not self._path and isinstance(value, str | os.PathLike):
            return "; a file is read by `load_optimization_config`"
        return super()._section_to_write(value)

    def groups(self) -> list[Group]:
        """Returns `param_groups`, with what Muon's `auxiliary` optimizer updates of each."""
        return groups_of(self)

    def ramp(self) -> Ramp:
        """Returns of how many micro-batches each update is, where all steps are numbers."""
        if self.accumulation is not None:
            return self.accumulation.ramp()
        return Ramp((self.optimizer.get().gradient_accumulation_steps,))

    def average_arguments(self) -> dict[str, Any] | None:
        """Returns the arguments of the weights' average, of `ema` or `use_ema`; None for none."""
        if self.ema is not None:
            return self.ema.arguments()
        return self.optimizer.get().average_arguments()

    @property
    def average_decay_name(self) -> str | None:
        """What the decay of the average is called; None where there is no average."""
        if self.ema is not None:
            return "average_decay"
        return "ema_momentum" if self.optimizer.get().use_ema else None

    def average_schedule(self) -> BaseLrConfig | None:
        """Returns what the decay of the average follows, or None."""
        oneof = self.schedules.get(self.average_decay_name or "")
        return None if oneof is None else oneof.get()

    def number_schedules(self) -> dict[str, LrConfig]:
        """Returns those of `schedules` that numbers of the optimizer follow."""
        schedules = self.schedules.items()
        return {name: oneof for name, oneof in schedules if name != self.average_decay_name}

    @overload
    def learning_rate_of(self) -> Rate: ...
    @overload
    def learning_rate_of(self, group: Group | None) -> Rate | None: ...
    def learning_rate_of(self, group: Group | None = None) -> Rate | None:
        """Returns the learning rate that counts, and its warmup (None for none).

        That is the `learning_rate` section, or what an optimizer has of its own. `group` is one of
        `groups()`, None for the variables that none of them matches. None is returned for a
        group that has the learning rate of all.
        """
        place: Any = self if group is None else group
        section = place.optimizer.get()
        own = None if section is None else section.own_learning_rate()
        if own is not None:
            return own, None
        if place.learning_rate.type is None:
            return None
        return as_scaled(place.learning_rate.get(), place.warmup.get(), self.lr_scaling)

    def schedule_start_of(self, section: Any) -> int:
        """Returns the step at which the rate of an optimizer's section starts.

        A rate that the optimizer makes itself counts its updates, which go on.
        """
        return 0 if section.own_learning_rate() is not None else self._schedule_start


ConfigT = TypeVar("ConfigT", bound=OptimizationConfig)


def optimization_section(
    params: Mapping[str, Any], source: str = ""
) -> tuple[Mapping[str, Any], str]:
    """Returns the optimization section of a mapping, and its dotted path, "" for the mapping.

    That is `trainer.optimizer_config` of an experiment, as Model Garden and this package write
    them, else the mapping is the section alone. Only that section is looked at. `source` is the
    file's name.

    Raises:
        ConfigError: If the way to the section is no mapping.
    """
    if not {"trainer", "task", "runtime"} & set(params):
        return params, ""
    section: Any = params
    path = ""
    for name in ("trainer", "optimizer_config"):
        path = f"{path}.{name}" if path else name
        origin = getattr(section, "origins", {}).get(name, Origin(source))
        is_empty = name in section
        section = section.get(name)
        if section is None:
            state = "is empty" if is_empty else "is not there"
            code, message = "missing", f"{state}: the file sets nothing about optimization"
        else:
            code, message = "type", f"expected a mapping, got {describe(section)}"
        if not isinstance(section, Mapping):
            raise ConfigError([Problem(code, path, message, origin)])
    return section, path


def load_optimization_config(
    *paths: str | os.PathLike, base: OptimizationConfig | None = None
) -> OptimizationConfig:
    """Reads the optimization part of experiment files, or files that are that part.

    >>> import tempfile
    >>> text = "{optimizer: {type: sgd}, learning_rate: {type: constant}}"
    >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
    ...     print(text, file=file, flush=True)
    ...     load_optimization_config(file.name).optimizer.type
    'sgd'

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


def resolved(
    config: OptimizationConfig,
    train_steps: int | None = None,
    steps_per_epoch: int | None = None,
    global_batch_size: int | None = None,
    tokens_per_step: int | None = None,
) -> OptimizationConfig:
    """Returns a locked copy in which every number of steps is a number, and nothing is wrong.

    What is doubtful and was not said before, such as what is known only now that there are
    numbers, is issued as a `ConfigWarning`. `train_steps`, in optimizer steps, is for "10%" and
    "remaining", `steps_per_epoch` for "5 epochs", `tokens_per_step` for "300B tokens",
    `global_batch_size` for "1M examples" and for an `lr_scaling` that does not say it. With
    `accumulation` the last three are of micro-batches.

    Raises:
        ConfigError: All that is wrong with the config.
        TypeError: If it is no `OptimizationConfig`.
        ValueError: For a length that is no whole number above 0.
    """
    if not isinstance(config, OptimizationConfig):
        hint = "; write `OptimizationConfig(...)` around it" if isinstance(config, dict) else ""
        if isinstance(config, str | os.PathLike):
            hint = "; `load_optimization_config` reads a file"
        raise TypeError(f"expected an OptimizationConfig, got {type(config).__name__}{hint}")
    lengths = {
        "train_steps": train_steps,
        "steps_per_epoch": steps_per_epoch,
        "global_batch_size": global_batch_size,
        "tokens_per_step": tokens_per_step,
    }
    for name, value in lengths.items():
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if value is not None and not (is_number and value > 0 and value == value // 1):
            message = f"Argument `{name}` must be an integer > 0"
            raise ValueError(f"{message}, received: {name}={value!r}")
    # A quotient, `epochs * examples / batch_size`, is a float.
    known: dict[str, Any] = {
        name: None if value is None else int(value) for name, value in lengths.items()
    }
    config, problems = config.sized(TrainingLength(**known))
    scaling = config.lr_scaling
    grows = config.accumulation is not None  # which must say its batch
    if scaling is not None and scaling.global_batch_size is None and not grows:
        if global_batch_size is None:
            message = "is not known: give it, or write it"
            problems.append(scaling._problem("missing", "global_batch_size", message))
        else:
            scaling.global_batch_size = known["global_batch_size"]
    fill_peaks(settle(config, problems, again=False))
    config.lock()
    return config
