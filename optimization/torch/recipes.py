"""Which class of PyTorch, with which arguments, each optimizer section means.

torch's own classes are used wherever torch has the algorithm; see docs/torch.md for the table.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.configs import printing
from optimization.rules.adafactor import AdafactorConfig
from optimization.rules.adafactor_variants import preset
from optimization.rules.base import BaseOptimizerConfig
from optimization.matching.patterns import matches_any
from optimization.torch import adaptive, layerwise
from optimization.torch.adafactor import Adafactor
from optimization.torch.adam import AdamW
from optimization.torch.ftrl import Ftrl
from optimization.torch.lion import Lion
from optimization.torch.muon import Muon
from optimization.torch.routing import hidden_matrices
from optimization.torch.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from optimization.torch.sgd import SGD

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


def sgd(section: BaseOptimizerConfig) -> Recipe:
    """`sgd`: torch's where there is neither momentum nor decay, the same in all forms."""
    momentum, decay = section.momentum, _decoupled(section)
    arguments = {"momentum": momentum, "nesterov": section.nesterov, "weight_decay": decay}
    own = Recipe(SGD, arguments)
    return own if momentum or decay else Recipe(torch.optim.SGD, {}, instead={"weight_decay": own})


def sgd_torch(section: BaseOptimizerConfig) -> Recipe:
    """`sgd_torch`: torch's, unless the momentum may grow from 0, which torch takes for none."""
    arguments = {
        "momentum": section.momentum,
        "nesterov": section.nesterov,
        "weight_decay": section.weight_decay,
    }
    own = {**arguments, "decoupled_weight_decay": False, "classic_momentum": False}

    def decays(name: str) -> bool:
        return matches_any(name, section.weight_keys)

    def settings(name: str, parameter: Tensor) -> dict[str, Any]:
        # A group of their own, for code that gives biases a rate of their own.
        bias = not decays(name) and matches_any(name, section.bias_keys)
        return {"kind": "bias"} if bias else {}

    # Those by default are for many models, and may match nothing.
    usual = type(section)()
    keys = ("weight_keys", "bias_keys")
    own_keys = {k: getattr(section, k) for k in keys if getattr(section, k) != getattr(usual, k)}
    names = {"decays": decays, "settings": settings, "patterns": own_keys}
    if not section.warmup_steps:
        instead = {"momentum": Recipe(SGD, own, **names)}
        return Recipe(torch.optim.SGD, arguments, **names, instead=instead)

    def momentum(step: int) -> float:
        progress = min(step / section.warmup_steps, 1.0)
        return section.momentum_start + (section.momentum - section.momentum_start) * progress

    return Recipe(SGD, own, **names, schedules={"momentum": momentum})


def adam(section: BaseOptimizerConfig) -> Recipe:
    """`adam`, `adamw` and Keras' names for them."""
    exclude = getattr(section, "exclude_from_weight_decay", None)
    include = getattr(section, "include_in_weight_decay", None)
    order = getattr(section, "weight_decay_order", "before")
    decay = _decoupled(section) or getattr(section, "weight_decay_rate", 0.0)
    arguments = {**_adam_arguments(section), "amsgrad": section.amsgrad, "weight_decay": decay}

    def decays(name: str) -> bool:
        if matches_any(name, include):
            return True
        return not matches_any(name, exclude) if exclude else not include

    patterns = {"include_in_weight_decay": include, "exclude_from_weight_decay": exclude}
    if section.epsilon_placement == "corrected" and order == "before":
        return Recipe(torch.optim.AdamW, arguments, decays, patterns=patterns)
    arguments |= {
        "correct_bias": section.correct_bias,
        "epsilon_placement": section.epsilon_placement,
        "weight_decay_order": order,
    }
    return Recipe(AdamW, arguments, decays, patterns=patterns)


def adamax(section: BaseOptimizerConfig) -> Recipe:
    """`adamax`: torch's in its own form, without decay, which torch has in the gradient."""
    arguments, decay = _adam_arguments(section), _decoupled(section)
    form = {"epsilon_in_norm": section.epsilon_in_norm, "weight_decay": decay}
    own = Recipe(adaptive.Adamax, {**arguments, **form})
    if section.epsilon_in_norm and not decay:
        return Recipe(torch.optim.Adamax, arguments, instead={"weight_decay": own})
    return own


def nadam(section: BaseOptimizerConfig) -> Recipe:
    """`nadam`: torch's."""
    arguments = {
        **_adam_arguments(section),
        "momentum_decay": section.momentum_decay,
        "weight_decay": _decoupled(section),
        "decoupled_weight_decay": True,
    }
    return Recipe(torch.optim.NAdam, arguments)


def rmsprop(section: BaseOptimizerConfig) -> Recipe:
    """`rmsprop`: torch's in its own form, without decay."""
    decay = _decoupled(section)
    arguments = {
        "alpha": section.rho,
        "eps": section.epsilon,
        "momentum": section.momentum,
        "centered": section.centered,
    }
    form = {
        "weight_decay": decay,
        "epsilon_in_sqrt": section.epsilon_in_sqrt,
        "classic_momentum": section.classic_momentum,
    }
    own = Recipe(adaptive.RMSprop, {**arguments, **form})
    torch_momentum = not section.momentum or not section.classic_momentum
    if not section.epsilon_in_sqrt and torch_momentum and not decay:
        instead = {"weight_decay": own, "momentum": own}
        return Recipe(torch.optim.RMSprop, arguments, instead=instead)
    return own


def adagrad(section: BaseOptimizerConfig) -> Recipe:
    """`adagrad`: torch's in its own form, without decay."""
    decay = _decoupled(section)
    arguments = {
        "eps": section.epsilon,
        "initial_accumulator_value": section.initial_accumulator_value,
    }
    form = {"weight_decay": decay, "epsilon_in_sqrt": section.epsilon_in_sqrt}
    own = Recipe(adaptive.Adagrad, {**arguments, **form})
    if not section.epsilon_in_sqrt and not decay:
        return Recipe(torch.optim.Adagrad, arguments, instead={"weight_decay": own})
    return own


def adadelta(section: BaseOptimizerConfig) -> Recipe:
    """`adadelta`: torch's, without decay."""
    arguments, decay = {"rho": section.rho, "eps": section.epsilon}, _decoupled(section)
    own = Recipe(adaptive.Adadelta, {**arguments, "weight_decay": decay})
    if decay:
        return own
    return Recipe(torch.optim.Adadelta, arguments, instead={"weight_decay": own})


def ftrl(section: BaseOptimizerConfig) -> Recipe:
    """`ftrl`."""
    arguments = {
        "lr_power": section.learning_rate_power,
        "initial_accumulator_value": section.initial_accumulator_value,
        "l1": section.l1_regularization_strength,
        "l2": section.l2_regularization_strength,
        "l2_shrinkage": section.l2_shrinkage_regularization_strength,
        "beta": section.beta,
        "weight_decay": _decoupled(section),
    }
    return Recipe(Ftrl, arguments)


def lion(section: BaseOptimizerConfig) -> Recipe:
    """`lion`."""
    betas = (section.beta_1, section.beta_2)
    return Recipe(Lion, {"betas": betas, "weight_decay": _decoupled(section)})


def lamb(section: BaseOptimizerConfig) -> Recipe:
    """`lamb`."""
    return _layerwise(section, layerwise.LAMB, _adam_arguments(section))


def lars(section: BaseOptimizerConfig) -> Recipe:
    """`lars`."""
    arguments = {
        "momentum": section.momentum,
        "trust_coefficient": section.eeta,
        "nesterov": section.nesterov,
        "classic_momentum": section.classic_momentum,
    }
    return _layerwise(section, layerwise.LARS, arguments)


def muon(section: BaseOptimizerConfig) -> Recipe:
    """`muon`, in Keras' form: AdamW updates what is no hidden matrix."""
    arguments = {
        "momentum": section.momentum,
        "nesterov": section.nesterov,
        "ns_coefficients": (section.muon_a, section.muon_b, section.muon_c),
        "ns_steps": section.ns_steps,
        "rms_rate": section.rms_rate,
        "weight_decay": section.weight_decay or 0.0,
        "adam_betas": (section.adam_beta_1, section.adam_beta_2),
        "adam_eps": section.epsilon,
        "adam_lr_ratio": section.adam_lr_ratio,
        "adam_weight_decay": section.adam_weight_decay or 0.0,
        "flatten": True,
    }

    def route(parameters: list[tuple[str, Tensor]], model: torch.nn.Module | None) -> Settings:
        matrices = hidden_matrices(parameters, model, section.exclude_embeddings)

        def settings(name: str, parameter: Tensor) -> dict[str, Any]:
            del parameter
            excluded = matches_any(name, section.exclude_layers)
            return {"use_muon": name in matrices and not excluded}

        return settings

    patterns = {"exclude_layers": section.exclude_layers}
    return Recipe(Muon, arguments, route=route, patterns=patterns)


def adafactor(section: BaseOptimizerConfig) -> Recipe:
    """`adafactor`: torch's where all switches are as torch has them."""
    arguments = section.arguments()
    arguments.pop("name", None)
    include = arguments.pop("include_in_weight_decay")
    arguments["weight_decay"] = section.weight_decay or 0.0
    names = {"decays": None, "patterns": {"include_in_weight_decay": include}}
    if include is not None:
        names["decays"] = lambda name: matches_any(name, include)
    takes_rate = section.own_learning_rate() is None
    own = Recipe(
        Adafactor, {"variant": section.variant, **arguments}, takes_rate=takes_rate, **names
    )
    if _is_torchs_adafactor(section):
        torchs = {
            "beta2_decay": -section.decay_rate,
            "eps": (section.epsilon1, section.epsilon2),
            "d": section.clipping_threshold,
            "weight_decay": section.weight_decay or 0.0,
        }
        instead = dict.fromkeys(set(section.numbers()) - {"weight_decay"}, own)
        return Recipe(torch.optim.Adafactor, torchs, **names, instead=instead)
    return own


def adafactor_keras(section: BaseOptimizerConfig) -> Recipe:
    """`adafactor_keras`, whose step size depends on the learning rate."""

    def switches(constant: bool) -> dict[str, Any]:
        values = section.switches(constant_rate=constant)
        return {k: v for k, v in values.items() if k not in ("name", "include_in_weight_decay")}

    arguments = {**switches(False), "variant": "keras", "weight_decay": _decoupled(section)}

    def step_size(constant: bool) -> dict[str, Any]:
        return {"step_size": switches(constant)["step_size"]}

    return Recipe(Adafactor, arguments, by_rate=step_size)


def schedule_free_sgd(section: BaseOptimizerConfig) -> Recipe:
    """`schedule_free_sgd`."""
    return Recipe(ScheduleFreeSGD, {"momentum": section.momentum, **_schedule_free(section)})


def schedule_free_adamw(section: BaseOptimizerConfig) -> Recipe:
    """`schedule_free_adamw`."""
    return Recipe(ScheduleFreeAdamW, {**_adam_arguments(section), **_schedule_free(section)})


def _schedule_free(section: BaseOptimizerConfig) -> dict[str, Any]:
    return {
        "weight_decay": section.weight_decay,
        "warmup_steps": section.warmup_steps,
        "r": section.r,
        "weight_lr_power": section.weight_lr_power,
    }


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


def _layerwise(section: BaseOptimizerConfig, cls: type, arguments: dict[str, Any]) -> Recipe:
    exclude = section.exclude_from_weight_decay
    fixed = section.exclude_from_layer_adaptation
    arguments |= {
        "weight_decay": section.weight_decay_rate,
        "decoupled_weight_decay": _decoupled(section),
    }

    def settings(name: str, parameter: Tensor) -> dict[str, Any]:
        del parameter
        return {"adapt": not matches_any(name, exclude if fixed is None else fixed)}

    patterns = {"exclude_from_weight_decay": exclude, "exclude_from_layer_adaptation": fixed}
    # At most one of the two is set.
    decay = "decoupled_weight_decay" if _decoupled(section) else "weight_decay"

    def decays(name: str) -> bool:
        return not matches_any(name, exclude)

    return Recipe(cls, arguments, decays, settings, decay, patterns)


def _adam_arguments(section: BaseOptimizerConfig) -> dict[str, Any]:
    return {"betas": (section.beta_1, section.beta_2), "eps": section.epsilon}


def _decoupled(section: BaseOptimizerConfig) -> float:
    """Returns the weight decay apart from the gradient, 0 for none."""
    return section.weight_decay or 0.0
