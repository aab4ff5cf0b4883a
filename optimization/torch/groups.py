"""Parameter groups of torch from the rules of a config."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optimization.configs.auxiliary_groups import AuxiliaryGroup, Group
from optimization.configs.optimization_config import OptimizationConfig
from optimization.matching.patterns import check_matches
from optimization.matching.rules import DEFAULT, assigned, refuse_all_frozen
from optimization.torch.by_name import bare_names
from optimization.torch.recipes import Part, Recipe, Settings, muon_route
from optimization.torch.resume import TYPE

# What the name of a group says of its settings.
_MARKS = {
    ("adapt", False): "no_adaptation",
    ("use_muon", True): "muon",
    ("use_muon", False): "adamw",
    ("kind", "bias"): "biases",
}
_UNTOLD = ("kind", "other")  # which has no setting of its own here
NamedParameters = list[tuple[str, Tensor]]


def named_parameters(model: torch.nn.Module | Iterable[tuple[str, Tensor]]) -> NamedParameters:
    """Returns what is to be trained, by `bare_names`; frozen parameters are left out."""
    needed = "Argument `model` must be a torch.nn.Module, or its `named_parameters()`, received:"
    module = model if isinstance(model, torch.nn.Module) else None
    try:
        pairs = list(model.named_parameters() if isinstance(model, torch.nn.Module) else model)
    except TypeError:
        raise TypeError(f"{needed} model={model!r}") from None
    for pair in pairs:
        named = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
        if not named or not isinstance(pair[1], Tensor):
            raise TypeError(f"{needed} {type(pair).__name__} among them")
    names = bare_names([name for name, _ in pairs], module)
    pairs = [(n, p) for n, (_, p) in zip(names, pairs, strict=True) if p.requires_grad]
    if not pairs:
        raise ValueError("Argument `model` has no parameter that requires gradients.")
    return pairs


def build_groups(
    config: OptimizationConfig,
    parts: Mapping[str, Part],
    parameters: NamedParameters,
    model: torch.nn.Module | None,
    rate: Callable[[Group | None], float],
    constant: Callable[[Group | None], bool],
) -> list[dict[str, Any]]:
    """Returns the parameter groups of an optimizer, in the order of their first parameters.

    Besides the arguments of the optimizer a group has `group_name`, `rule`, the name of the rule
    that made it, `optimizer_type`, and `lr_multiplier`, the factor on the rate of that rule. `rate`
    returns that of a rule at step 0, and `constant` says whether it stays.
    """
    names = [name for name, _ in parameters]
    settings_of: dict[str, Settings | None] = {}
    for part_name, (_, _, recipe, _) in parts.items():
        for argument, patterns in recipe.patterns.items():
            check_matches(patterns, names, argument)
        route = recipe.route
        settings_of[part_name] = route(parameters, model) if route else recipe.settings
    rules = _rules(config, parameters, model)
    refuse_all_frozen(rules)
    layers: list[tuple[int | None, float]] = [(None, 1.0)] * len(names)
    if config.layer_decay is not None:
        layers = [*config.layer_decay.multipliers(names)]
    groups: dict[tuple, dict[str, Any]] = {}
    for (name, parameter), rule, (layer, factor) in zip(parameters, rules, layers, strict=True):
        if rule is not None and rule.freeze:
            continue
        label = DEFAULT if rule is None else rule.label
        part_name = label if label in parts else DEFAULT
        kind, _, recipe, _ = parts[part_name]
        special = settings_of[part_name]
        own = special(name, parameter) if special else {}
        settings = _settings(recipe, rule, name, own)
        if recipe.by_rate is not None:
            settings |= recipe.by_rate(constant(rule))
        multiplier = factor * (rule.learning_rate_multiplier if rule else 1.0)
        key = (label, multiplier, *settings.items())
        if key not in groups:
            labels = [label, *([f"layer_{layer}"] if factor != 1 else [])]
            labels += [_MARKS.get((k, v), f"{k}={v}") for k, v in settings.items()]
            groups[key] = {
                "params": [],
                "lr": rate(rule) * multiplier,
                "group_name": "/".join(labels),
                "rule": label,
                TYPE: kind,
                "lr_multiplier": multiplier,
                **settings,
            }
        groups[key]["params"].append((name, parameter))
    if not groups:
        raise ValueError("Every parameter is frozen: there is nothing to train.")
    return list(groups.values())


def _rules(
    config: OptimizationConfig, parameters: NamedParameters, model: torch.nn.Module | None
) -> list[Group | None]:
    """Returns the rule of each parameter."""
    rules = config.groups()
    owners: dict[int, str] = {}
    for part in () if model is None else model.modules():
        for parameter in part.parameters(recurse=False):
            owners.setdefault(id(parameter), type(part).__name__)
    if any(each.layer_type for rule in rules for each in (rule, *rule.also)) and not owners:
        raise ValueError(
            "A parameter group with `layer_type` needs the modules: give the model itself to "
            "`build_optimizer`, not its parameters."
        )
    names, dims = [name for name, _ in parameters], [p.dim() for _, p in parameters]

    def left(group: AuxiliaryGroup) -> set[str]:
        settings = muon_route(group.muon, parameters, model)
        return {name for name, p in parameters if not settings(name, p)["use_muon"]}

    return assigned(rules, names, dims, [owners.get(id(p)) for _, p in parameters], left)


def _settings(
    recipe: Recipe, rule: Group | None, name: str, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the hyperparameters of a parameter that differ from the optimizer's, or are told."""
    settings = {
        k: v
        for k, v in own.items()
        if (k, v) in _MARKS or ((k, v) != _UNTOLD and recipe.arguments.get(k, True) != v)
    }
    usual = recipe.arguments.get(recipe.decay, 0.0)
    decay = usual if rule is None or rule.weight_decay is None else rule.weight_decay
    if recipe.decays is not None and not recipe.decays(name):
        decay = 0.0
    if decay != usual:
        settings[recipe.decay] = decay
    return settings
