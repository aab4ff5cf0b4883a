"""Loading the state of an optimizer by the names of its parameters."""

from typing import Any

from torch.optim import Optimizer

from optimization.torch.foreign import in_our_words
from optimization.torch.names import bare_names


def load_by_name(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any] | None:
    """Reorders a state dict so that each parameter gets the state that was saved under its name.

    It is a hook for `Optimizer.register_load_state_dict_pre_hook`. It acts where both sides were
    given names, in every group; otherwise parameters are matched by position, as torch does.
    Names are compared as `bare_names`, so that a model may be compiled or wrapped on one side only.
    Settings that a saved group does not have, as that of another class or version, stay.

    Args:
        optimizer: What is loaded.
        state_dict: What `optimizer.state_dict()` returned.

    Returns:
        A state dict in the optimizer's order; None where there is nothing to do.

    Raises:
        ValueError: If the names are not the same on both sides, or parameters of one group here
            were saved from several.
    """
    groups, saved = optimizer.param_groups, state_dict["param_groups"]
    here, there = ([group.get("param_names") for group in side] for side in (groups, saved))
    reordered = None
    if None not in here + there and here != there:
        reordered = _reordered(_with_bare_names(groups), state_dict)
        for group, ordered in zip(groups, reordered["param_groups"], strict=True):
            ordered["param_names"] = list(group["param_names"])
    return _completed(groups, reordered or state_dict) or reordered


def load_in_our_words(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Does the same for a class of this package, which also loads state of torch's classes."""
    state_dict = in_our_words(state_dict)
    return load_by_name(optimizer, state_dict) or state_dict


def _completed(groups: list[dict[str, Any]], state_dict: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a state dict whose groups have all settings; None where there is nothing to do."""
    saved = state_dict["param_groups"]
    if len(groups) != len(saved):  # which torch refuses
        return None
    kept = [
        {k: v for k, v in group.items() if k not in (*other, "params", "param_names")}
        for group, other in zip(groups, saved, strict=True)
    ]
    if not any(kept):
        return None
    merged = [{**group, **own} for group, own in zip(saved, kept, strict=True)]
    return {**state_dict, "param_groups": merged}


def _reordered(groups: list[dict[str, Any]], state_dict: dict[str, Any]) -> dict[str, Any]:
    saved = _with_bare_names(state_dict["param_groups"])
    places = {
        name: (group, index)
        for group in saved
        for name, index in zip(group["param_names"], group["params"], strict=True)
    }
    check_names({name for group in groups for name in group["param_names"]}, set(places))
    state: dict[int, Any] = {}
    ordered = []
    position = 0
    for group in groups:
        source = _source(group, places)
        indices = range(position, position + len(group["params"]))
        position = indices.stop
        for name, index in zip(group["param_names"], indices, strict=True):
            old = places[name][1]
            if old in state_dict["state"]:
                state[index] = state_dict["state"][old]
        names = list(group["param_names"])
        ordered.append({**source, "params": list(indices), "param_names": names})
    return {**state_dict, "state": state, "param_groups": ordered}


def _with_bare_names(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = iter(bare_names([name for group in groups for name in group["param_names"]]))
    return [{**group, "param_names": [next(names) for _ in group["params"]]} for group in groups]


def check_names(here: set[str], there: set[str]) -> None:
    """Raises if the names that were saved are not those that are here."""
    if here != there:
        parts = {"Missing": sorted(here - there), "Left over": sorted(there - here)}
        told = " ".join(f"{name}: {names}." for name, names in parts.items() if names)
        raise ValueError(f"The loaded state belongs to other parameters. {told}")


def _source(group: dict[str, Any], places: dict[str, tuple]) -> dict[str, Any]:
    """Returns the saved group from which all the parameters of `group` come."""
    sources = {id(places[name][0]): places[name][0] for name in group["param_names"]}
    if len(sources) > 1:
        raise ValueError(
            f"The parameters {', '.join(group['param_names'])} are one group here, and were saved "
            f"from {len(sources)} groups with settings of their own."
        )
    return next(iter(sources.values()), {k: v for k, v in group.items() if k != "params"})
