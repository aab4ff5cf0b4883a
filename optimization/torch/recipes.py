"""Which class of PyTorch, with which arguments, each optimizer section means, if there is one.

torch's own classes are used where torch has a fused kernel of the algorithm; see docs/torch.md for
the table.
"""

import dataclasses
import functools
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.configs import printing
from optimization.configs.auxiliary_groups import Group, all_groups
from optimization.configs.branches import OptimizerBranches
from optimization.configs.errors import Problem
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.configs.rate_curve import RateCurve, places
from optimization.matching.rules import DEFAULT
from optimization.rules.adafactor import (
    AdafactorConfig,
    AdafactorKerasConfig,
    keras_switches,
)
from optimization.rules.base import ALL_CLIPS, BaseOptimizerConfig
from optimization.rules.modifiers import MODIFIER_FIELDS
from optimization.rules.muon import MuonConfig
from optimization.rules.rule import NATIVE, Rule, native_argument
from optimization.schedules.metric import MetricLrConfig
from optimization.torch.adafactor import Adafactor
from optimization.torch.derived import native_class
from optimization.torch.functions import FUNCTIONS
from optimization.torch.gradients import GradientRules
from optimization.torch.routing import hidden_matrices
from optimization.torch.schedule import place_of

REFUSED = {
    "gradient_accumulation_steps": (
        "is the training loop's in PyTorch: call `backward()` that often, on the loss divided by "
        "it, before each `step()`"
    ),
    "max_consecutive_nonfinite": "is not there natively: `torch.amp.GradScaler` skips such steps",
    "jit_compile": "is for XLA; in PyTorch it is `build_optimizer(model, compile=True)`",
    "loss_scale_factor": "is `torch.amp.GradScaler(init_scale=...)` in PyTorch",
    "ema_overwrite_frequency": (
        "is the training loop's in PyTorch: copy the average's parameters into the model"
    ),
}
"""What belongs to the training loop of PyTorch, and what does it there."""
Settings = Callable[[str, Tensor], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How PyTorch has an optimizer.

    >>> Recipe(torch.optim.Rprop, {"etas": (0.5, 1.2)}).cls.__name__
    'Rprop'

    Attributes:
        cls: The class.
        arguments: Its arguments, apart from the parameters and the learning rate.
        decays: Whether weight decay acts on the parameter of a name; None: on all.
        settings: What else the group of a parameter has of its own, by name and parameter.
        decay: The argument that is the weight decay.
        patterns: Arguments of the section that hold regular expressions, of which one must match a
            parameter; those that don't are warned about.
        by_rate: What a group has of its own where its learning rate is a constant, or is not.
        schedules: Hyperparameters that change by themselves, as functions of the steps done.
        route: Makes `settings`, where they depend on all parameters, or on the model if that is
            known.
    """

    cls: type[Optimizer]
    arguments: Mapping[str, Any]
    decays: Callable[[str], bool] | None = None
    settings: Settings | None = None
    decay: str = "weight_decay"
    patterns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    by_rate: Callable[[bool], Mapping[str, Any]] | None = None
    schedules: Mapping[str, Callable[[int], float]] = dataclasses.field(default_factory=dict)
    route: Callable[[list[tuple[str, Tensor]], torch.nn.Module | None], Settings] | None = None

    def __repr__(self) -> str:
        return printing.call(self.cls.__name__, **self.arguments)


class Part(NamedTuple):
    """What updates the parameters of a rule, or all that have no algorithm of their own.

    `schedules` has the keys in groups of the scheduled numbers that it follows, "betas.0" for the
    first of a pair, by the names in the config.
    """

    type: str
    section: BaseOptimizerConfig
    recipe: Recipe
    schedules: Mapping[str, str]


def type_of(oneof: OptimizerBranches) -> str:
    """Returns the type of an optimizer."""
    return typing.cast(str, oneof.type)  # a validated config has one


def parts_of(config: OptimizationConfig) -> dict[str, Part]:
    """Returns what updates parameters, by the name of the rule; the default one first."""
    rules = config.groups()
    shared = [rule for rule in rules if rule.optimizer.type is None]
    return {
        DEFAULT: _part(config, config.optimizer, shared),
        **{r.label: _part(config, r.optimizer, [r]) for r in rules if r.optimizer.type is not None},
    }


def _part(config: OptimizationConfig, oneof: OptimizerBranches, rules: Sequence[Group]) -> Part:
    section, followed = oneof.get(), _followed(config, oneof)
    changing = set(followed) - {"weight_decay"}
    if any(rule.weight_decay for rule in rules):
        changing.add("weight_decay")
    state = config.optimizer.get().state
    recipe = _recipe(oneof, changing, state is not None)
    keys = {**NATIVE, **getattr(section, "native_arguments", {})}
    keys[section.argument_name("weight_decay")] = recipe.decay
    schedules = {name: keys.get(argument, argument) for name, argument in followed.items()}
    return Part(type_of(oneof), section, recipe, schedules)


def _followed(config: OptimizationConfig, oneof: OptimizerBranches) -> dict[str, str]:
    """Returns the scheduled numbers that an optimizer follows: those that it has, and not as 0."""
    section, usual = oneof.get(), config.optimizer.get()
    arguments = {name: usual.argument_name(name) for name in config.number_schedules()}
    # Clips are of the whole step; all groups that share them follow.
    arguments = {n: argument for n, argument in arguments.items() if argument not in ALL_CLIPS}
    if oneof is config.optimizer:
        return arguments
    own = {name: section.argument_name(argument) for name, argument in arguments.items()}
    return {name: argument for name, argument in own.items() if section.arguments().get(argument)}


def gradient_rules(config: OptimizationConfig) -> GradientRules:
    """Returns what happens to gradients before a step."""
    values = config.optimizer.get().pipeline_arguments()
    known = {n: values[n] for n in GradientRules.__dataclass_fields__ if values.get(n)}
    own = [(group.label, group.own_clip()) for group in config.groups()]
    clips = tuple([(label, *clip) for label, clip in own if clip is not None])
    frozen = [(group.label, group.freeze_steps) for group in config.groups()]
    return GradientRules(
        **known,
        own=clips,
        zclip=config.zclip,
        skip_spikes=config.skip_spikes,
        freeze_steps=tuple([(label, steps) for label, steps in frozen if steps]),
    )


def clip_curves(config: OptimizationConfig) -> dict[str, RateCurve]:
    """Returns what the clips of all follow that are on schedules."""
    rates = {name: oneof.get() for name, oneof in config.schedules.items() if name in ALL_CLIPS}
    return {name: RateCurve(rate, start=config._schedule_start) for name, rate in rates.items()}


def _recipe(oneof: OptimizerBranches, changing: Set[str], rounds: bool) -> Recipe:
    section, own = oneof.get(), OPTIMIZERS_CLS.entry(type_of(oneof)).torch
    if own is not None:
        return pkgutil.resolve_name(own)(section)
    if isinstance(section, AdafactorConfig):
        return _adafactor(section)
    if isinstance(section, AdafactorKerasConfig):
        return _adafactor_keras(section)
    return _of_rule(section, changing, rounds)


def _of_rule(section: Any, changing: Set[str], rounds: bool = False) -> Recipe:
    """Returns the recipe of a rule: torch's own class where that is the same, else the derived one.

    `changing` are the numbers that follow a schedule, or that groups replace. The derived class
    `rounds` what it keeps, torch's does not.
    """
    rule = type(section)
    own = native_class(rule)
    cls: type[Optimizer] = own
    arguments = own.arguments_of(section)

    def settings(name: str, parameter: Tensor) -> dict[str, Any]:
        return section.settings(name, tuple(parameter.shape))

    equivalent = section.native_equivalent(changing)
    if equivalent and not rounds:
        cls = getattr(torch.optim, equivalent)
        known = inspect.signature(cls).parameters.keys() - set(rule.torch_lacks)
        given = {"decoupled_weight_decay": True, **arguments}  # as wherever torch asks
        arguments = {name: value for name, value in given.items() if name in known}
    curves = {
        name: lambda step, f=function: float(f(step, FUNCTIONS))
        for name, function in section.curves().items()
    }
    return Recipe(
        cls,
        arguments,
        section.decays,
        settings,
        native_argument(rule, section.argument_name("weight_decay") or "weight_decay"),
        section.patterns(),
        schedules=curves,
    )


def muon(section: MuonConfig) -> Recipe:
    """`muon`, which finds the hidden matrices of a model."""
    recipe = _of_rule(section, set())
    arguments = {**recipe.arguments, "flatten": True}
    route = functools.partial(muon_route, section)
    return dataclasses.replace(recipe, arguments=arguments, route=route)


def muon_route(
    section: MuonConfig, parameters: list[tuple[str, Tensor]], model: torch.nn.Module | None
) -> Settings:
    """Returns what parameters of a model have of their own with Muon."""
    matrices = hidden_matrices(
        parameters, model, section.exclude_embeddings, section.include_layers
    )

    def settings(name: str, parameter: Tensor) -> dict[str, Any]:
        takes = section.takes(name, matrices)
        parts = section.parts_of(name, tuple(parameter.shape), True) if takes else 1
        return {"use_muon": takes, "parts": parts}

    return settings


def _adafactor(section: AdafactorConfig) -> Recipe:
    """Returns the recipe of `adafactor`; torch's own class computes nothing that is split."""
    arguments = {"variant": section.variant, **Adafactor.arguments_of(section)}
    include = section.include_in_weight_decay
    return Recipe(
        Adafactor, arguments, section.decays, patterns={"include_in_weight_decay": include}
    )


def _adafactor_keras(section: AdafactorKerasConfig) -> Recipe:
    """Returns the recipe of `adafactor_keras`, whose step size depends on the learning rate."""
    modifiers = {name: getattr(section, name) for name in MODIFIER_FIELDS}
    arguments = {**keras_switches(section, False), **modifiers, "variant": "keras"}
    arguments["weight_decay"] = section.weight_decay or 0.0
    del arguments["include_in_weight_decay"]

    def step_size(constant: bool) -> dict[str, Any]:
        return {"step_size": keras_switches(section, constant)["step_size"]}

    return Recipe(Adafactor, arguments, by_rate=step_size)


def is_native(name: str) -> bool:
    entry = OPTIMIZERS_CLS.entry(name)
    return entry.torch is not None or issubclass(entry.config_class, Rule)


def unknown_hyperparameters(
    config: OptimizationConfig, parts: Mapping[str, Part]
) -> Iterable[Problem]:
    """Yields schedules of what the class, as PyTorch has it, does not have."""
    for kind, _, recipe, schedules in parts.values():
        known = {**inspect.signature(recipe.cls).parameters, **recipe.arguments}
        for name, key in schedules.items():
            if key != recipe.decay and place_of(known, key) is None:
                message = f"the class of `{kind}` in PyTorch has no `{key}`"
                yield config._problem("conflict", f"schedules.{name}", message)


def native_problems(config: OptimizationConfig) -> Iterable[Problem]:
    """Yields what PyTorch does not have natively."""
    section = config.optimizer.get()
    having = ", ".join(filter(is_native, OPTIMIZERS_CLS))
    for oneof in [place.optimizer for place in places(config)]:
        if oneof.type is not None and not is_native(oneof.type):
            message = f"`{oneof.type}` has no native PyTorch implementation; these have: {having}"
            yield oneof._problem("conflict", "type", message)
    if not is_native(type_of(config.optimizer)):
        return
    defaults = type(section)()
    for name in section.pipeline_fields():
        value = getattr(section, name)
        compiles_nothing = name == "jit_compile" and value in ("auto", False)
        if name in REFUSED and value != getattr(defaults, name) and not compiles_nothing:
            yield section._problem("conflict", name, REFUSED[name])
    if section.on_nonfinite == "skip":
        message = "cannot be `skip` in PyTorch: `torch.amp.GradScaler` skips such steps"
        yield section._problem("conflict", "on_nonfinite", message)
    yield from _beside_a_metric(config)


def _beside_a_metric(config: OptimizationConfig) -> Iterable[Problem]:
    """Yields what a scheduler that follows a metric, and counts no steps, cannot set."""
    rate = config.learning_rate
    if not isinstance(rate.get(), MetricLrConfig):
        return
    for group in all_groups(config):
        if group.learning_rate.type is not None:
            message = f"`{rate.type}` changes the rates of all groups of a torch.optim.Optimizer"
            yield group._problem("conflict", "learning_rate", message)
    own = (group.optimizer.get() for group in config.groups())
    sections = [config.optimizer.get(), *filter(None, own)]
    if config.number_schedules() or any(isinstance(s, Rule) and s.curves() for s in sections):
        message = "follows a metric in PyTorch, and nothing then sets what follows the steps"
        yield rate._problem("conflict", "type", message)
