"""Which class of PyTorch, with which arguments, each optimizer section means.

torch's own classes are used wherever torch has the algorithm; see docs/torch.md for the table.
"""

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.configs import printing
from optimization.configs.group_config import ParamGroupConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS, OptimizerConfig
from optimization.matching.patterns import matches_any
from optimization.matching.rules import DEFAULT
from optimization.rules.adafactor import (
    AdafactorConfig,
    AdafactorKerasConfig,
    keras_switches,
    preset,
)
from optimization.rules.base import BaseOptimizerConfig
from optimization.rules.muon import MuonConfig
from optimization.rules.rule import Rule, native_argument
from optimization.torch.adafactor import Adafactor
from optimization.torch.arguments import native_arguments
from optimization.torch.derived import native_class
from optimization.torch.functions import FUNCTIONS
from optimization.torch.routing import hidden_matrices

Settings = Callable[[str, Tensor], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How PyTorch has an optimizer.

    Attributes:
        cls: The class.
        arguments: Its arguments, apart from the parameters and the learning rate.
        decays: Whether weight decay acts on the parameter of a name; None: on all.
        settings: What else the group of a parameter has of its own, by name and parameter.
        decay: The argument that is the weight decay.
        patterns: Arguments of the section that hold regular expressions, of which one must match a
            parameter; those that don't are warned about.
        by_rate: What a group has of its own where its learning rate is a constant, or is not.
        takes_rate: Whether the learning rate is an argument; else the class makes it.
        instead: What to take instead, where torch's class will not do: by "weight_decay" where a
            group decays though the section does not, since the class has the decay in the gradient;
            by the name of any other number where that follows a schedule.
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
    takes_rate: bool = True
    instead: Mapping[str, "Recipe"] = dataclasses.field(default_factory=dict)
    schedules: Mapping[str, Callable[[int], float]] = dataclasses.field(default_factory=dict)
    route: Callable[[list[tuple[str, Tensor]], torch.nn.Module | None], Settings] | None = None

    def __repr__(self) -> str:
        return printing.call(self.cls.__name__, **self.arguments)


class Part(NamedTuple):
    """What updates the parameters of a rule, or all that have no algorithm of their own.

    Attributes:
        type: What the config calls it.
        section: Its section.
        recipe: How PyTorch has it.
        schedules: What it calls the scheduled numbers that it follows, by the names in the config.
    """

    type: str
    section: BaseOptimizerConfig
    recipe: Recipe
    schedules: Mapping[str, str]


def type_of(oneof: OptimizerConfig) -> str:
    """Returns the type of an optimizer."""
    return typing.cast(str, oneof.type)  # a validated config has one


def parts_of(config: OptimizationConfig) -> dict[str, Part]:
    """Returns what updates parameters, by the name of the rule; the default one first."""
    rules = config.param_groups
    shared = [rule for rule in rules if rule.optimizer.type is None]
    return {
        DEFAULT: _part(config, config.optimizer, shared),
        **{r.label: _part(config, r.optimizer, [r]) for r in rules if r.optimizer.type is not None},
    }


def _part(
    config: OptimizationConfig, oneof: OptimizerConfig, rules: Sequence[ParamGroupConfig]
) -> Part:
    section, schedules = oneof.get(), _followed(config, oneof)
    changing = set(schedules) - {"weight_decay"}
    if any(rule.weight_decay for rule in rules):
        changing.add("weight_decay")
    return Part(type_of(oneof), section, _recipe(oneof, changing), schedules)


def _followed(config: OptimizationConfig, oneof: OptimizerConfig) -> dict[str, str]:
    """Returns the scheduled numbers that an optimizer follows: those that it has, and not as 0."""
    section, usual = oneof.get(), config.optimizer.get()
    arguments = {name: usual.argument_name(name) for name in config.schedules}
    if oneof is config.optimizer:
        return arguments
    own = {name: section.argument_name(argument) for name, argument in arguments.items()}
    return {name: argument for name, argument in own.items() if section.arguments().get(argument)}


def _recipe(oneof: OptimizerConfig, changing: Set[str]) -> Recipe:
    section, own = oneof.get(), OPTIMIZERS_CLS.entry(type_of(oneof)).torch
    if own is None:
        return of_rule(section, changing)
    module, _, name = own.partition(":")
    recipe = getattr(importlib.import_module(module), name)(section)
    return next((recipe.instead[name] for name in changing if name in recipe.instead), recipe)


def of_rule(section: Rule, changing: Set[str] = frozenset()) -> Recipe:
    """Returns the recipe of a rule: torch's own class where that is the same, else the derived one.

    Args:
        section: The rule.
        changing: The numbers that follow a schedule, or that groups replace.
    """
    rule = type(section)
    arguments = native_arguments(section)
    cls: type[Optimizer] = native_class(rule)
    settings: Settings | None = None
    if rule.variable_settings:

        def settings(name: str, parameter: Tensor) -> dict[str, Any]:
            return section.settings(name, tuple(parameter.shape))

    equivalent = section.native_equivalent(changing)
    if equivalent:
        cls = getattr(torch.optim, equivalent)
        known = inspect.signature(cls).parameters.keys() - set(rule.torch_lacks)
        given = {**arguments, "decoupled_weight_decay": True}  # as wherever torch asks
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

    def route(parameters: list[tuple[str, Tensor]], model: torch.nn.Module | None) -> Settings:
        matrices = hidden_matrices(parameters, model, section.exclude_embeddings)
        return lambda name, parameter: {"use_muon": section.takes(name, matrices)}

    recipe = of_rule(section)
    arguments = {**recipe.arguments, "flatten": True}
    return dataclasses.replace(recipe, arguments=arguments, route=route)


def adafactor(section: AdafactorConfig) -> Recipe:
    """`adafactor`: torch's where all switches are as torch has them."""
    arguments = section.arguments()
    arguments.pop("name", None)
    include = arguments.pop("include_in_weight_decay")
    arguments["weight_decay"] = section.weight_decay or 0.0
    decays = None if include is None else lambda name: matches_any(name, include)
    patterns = {"include_in_weight_decay": include}
    takes_rate = section.own_learning_rate() is None
    switches = {"variant": section.variant, **arguments}
    own = Recipe(Adafactor, switches, decays, patterns=patterns, takes_rate=takes_rate)
    if _is_torchs_adafactor(section):
        torchs = {
            "beta2_decay": -section.decay_rate,
            "eps": (section.epsilon1, section.epsilon2),
            "d": section.clipping_threshold,
            "weight_decay": section.weight_decay or 0.0,
        }
        instead = dict.fromkeys(set(section.numbers()) - {"weight_decay"}, own)
        return Recipe(torch.optim.Adafactor, torchs, decays, patterns=patterns, instead=instead)
    return own


def adafactor_keras(section: AdafactorKerasConfig) -> Recipe:
    """`adafactor_keras`, whose step size depends on the learning rate."""

    def switches(constant: bool) -> dict[str, Any]:
        values = keras_switches(section, constant)
        return {k: v for k, v in values.items() if k != "include_in_weight_decay"}

    arguments = {**switches(False), "variant": "keras", "weight_decay": _decoupled(section)}

    def step_size(constant: bool) -> dict[str, Any]:
        return {"step_size": switches(constant)["step_size"]}

    return Recipe(Adafactor, arguments, by_rate=step_size)


def _is_torchs_adafactor(section: AdafactorConfig) -> bool:
    """Says whether the switches that `torch.optim.Adafactor` does not have are as it has them."""
    free = ("decay_rate", "epsilon1", "epsilon2", "clipping_threshold", "weight_decay")
    named = ("name", "include_in_weight_decay")
    usual = preset("torch")
    fixed = {k: v for k, v in section.arguments().items() if k not in (*free, *named)}
    threshold = section.clipping_threshold
    # torch takes no threshold below 1.
    same = all(usual[name] == value for name, value in fixed.items())
    return same and threshold is not None and threshold >= 1


def _decoupled(section: BaseOptimizerConfig) -> float:
    """Returns the weight decay apart from the gradient, 0 for none."""
    return section.weight_decay or 0.0
