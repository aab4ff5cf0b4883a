"""State dicts of torch's and transformers' classes, in the words of this package."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.rules.adafactor import AdafactorConfig
from optimization.rules.adafactor_formula import axes_to_factor

Settings = Mapping[str, Any]
_ROW, _COLUMN = "exp_avg_sq_row", "exp_avg_sq_col"
_MARKS = {
    "alpha_warmup": "AdEMAMix",
    "adjust_lr_fn": "torch.optim.Muon",
    "ns_steps": "Muon",
    "trust_coefficient": "LARS",
    "adapt": "LAMB",
    "decay_rate": "Adafactor",
    "momentum_decay": "NAdam",
    "clip_exponent": "ADOPT",
    "lr_power": "Ftrl",
    "etas": "Rprop",
    "lambd": "ASGD",
    "epsilon_in_norm": "Adamax",
    "rho": "Adadelta",
    "alpha": "RMSprop",
    "classic_momentum": "SGD",
    "initial_accumulator_value": "Adagrad",
    "amsgrad": "Adam",
    "correct_bias": "Adam",
    "decoupled_weight_decay": "RAdam",
}
"""Which algorithm a group is of that has a setting of this name; the first that it has counts."""

_KEPT: dict[type[Optimizer], dict[str, str | None]] = {
    torch.optim.SGD: {"momentum_buffer": "momentum"},
    torch.optim.Adam: {"exp_avg": None, "exp_avg_sq": None, "max_exp_avg_sq": "amsgrad"},
    torch.optim.Adagrad: {"sum": None},
}
"""What the classes of torch that the factory builds keep, each with the setting that it needs.

`AdamW` is an `Adam`.
"""


def algorithm_of(group: Settings) -> str | None:
    """Returns the algorithm that the settings of a group give away, in our words; None if none."""
    if "weight_lr_power" in group:
        return "schedule-free AdamW" if "betas" in group else "schedule-free SGD"
    return next((name for mark, name in _MARKS.items() if mark in group), None)


def in_our_words(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Returns a state dict with settings and state called as this package calls them.

    State of torch's Adafactor, SGD and RMSprop, and of transformers' Adafactor, means what a group
    says that it means: a group gets the settings that its class has not, but that it follows.
    """
    groups = [settings_in_our_words(group) for group in state_dict["param_groups"]]
    states = {index: _state_in_our_words(state) for index, state in state_dict["state"].items()}
    for group in groups:
        if "mu_product" in group:  # which versions before this one kept of a group
            product = torch.tensor(group.pop("mu_product"), dtype=torch.float64)
            for index in group["params"]:
                states.get(index, {}).setdefault("mu_product", product.clone())
    return {**state_dict, "state": states, "param_groups": groups}


def settings_in_our_words(group: Settings) -> dict[str, Any]:
    """Returns the settings of one group as this package calls them."""
    group = dict(group)
    if "beta2_decay" in group:
        epsilon1, epsilon2 = group.pop("eps")
        numbers = {"decay_rate": -group.pop("beta2_decay"), "clipping_threshold": group.pop("d")}
        return {**_variant("torch"), "epsilon1": epsilon1, "epsilon2": epsilon2, **numbers, **group}
    if "scale_parameter" in group:
        epsilon1, epsilon2 = group.pop("eps")
        relative = group.pop("relative_step")
        renamed = {
            "decay_rate": -group.pop("decay_rate"),
            "clipping_threshold": group.pop("clip_threshold"),
            "multiply_by_parameter_scale": group.pop("scale_parameter"),
            "step_size": "relative" if relative else "absolute",
        }
        return {**_variant("hf"), "epsilon1": epsilon1, "epsilon2": epsilon2, **renamed, **group}
    if "dampening" in group and "classic_momentum" not in group:
        return {**group, "classic_momentum": False, "decoupled_weight_decay": False}
    if "centered" in group and "classic_momentum" not in group:
        return {**group, "classic_momentum": False, "epsilon_in_sqrt": False}
    return group


def _variant(name: str) -> dict[str, Any]:
    switches = AdafactorConfig.preset(name)
    del switches["include_in_weight_decay"]
    return {**switches, "weight_decay": 0.0}


def _state_in_our_words(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    state = {name: value for name, value in state.items() if value is not None}
    state.pop("RMS", None)  # transformers keeps it for its logs
    if "row_var" in state:
        state[_ROW] = state.pop("row_var").squeeze(-1)
        state[_COLUMN] = state.pop("col_var").squeeze(-2)
    if "variance" in state:
        state["exp_avg_sq"] = state.pop("variance")
    return state


def factored_as_here(
    state: dict[str, Any], shape: torch.Size, saved: Settings, here: Settings
) -> dict[str, Any]:
    """Returns the state of an Adafactor's parameter with its row and column means as here.

    The same two axes in the other order swap the two.
    """
    if _ROW not in state or "factored_axes" not in saved:
        return state
    if _axes(shape, saved) == (_axes(shape, here) or ())[::-1]:
        return {**state, _ROW: state[_COLUMN], _COLUMN: state[_ROW]}
    return state


def _axes(shape: torch.Size, group: Settings) -> tuple[int, int] | None:
    return axes_to_factor(tuple(shape), group["factored_axes"], group["min_dim_size_to_factor"])


def torchs_state(
    optimizer: Optimizer, parameter: Tensor, group: Settings
) -> dict[str, Tensor] | None:
    """Returns what a class of torch keeps of a parameter, in our words, all of it 0.

    That is without `step`; None for a class that is not known.
    """
    shape, zeros = parameter.shape, parameter.new_zeros
    for cls, parts in _KEPT.items():
        if isinstance(optimizer, cls):
            names = [name for name, setting in parts.items() if setting is None or group[setting]]
            return {name: zeros(shape) for name in names}
    return None
