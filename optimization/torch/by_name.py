"""Names of parameters, as a model that is not wrapped has them, and loading state by them."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from optimization.torch.foreign import in_our_words

Group = Mapping[str, Any]
Sources = list[tuple[Group, list[str]]]  # saved groups, with the names of parameters
# Of torch.compile, of FSDP and of activation checkpoints, which no model has of its own.
_PRIVATE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Wrappers with a `module`, known by their classes' names: not all of them are torch's.
_WRAPPERS = {"AveragedModel", "DataParallel", "DeepSpeedEngine", "DistributedDataParallel"}
_MODULE = "module"


class Saved(NamedTuple):
    """What was saved of a parameter: its group, and its state."""

    group: Group
    state: dict[str, Any]


def load_by_name(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any] | None:
    """Reorders a state dict so that each parameter gets the state that was saved under its name.

    It is a hook for `Optimizer.register_load_state_dict_pre_hook`. It acts where both sides were
    given names, in every group; otherwise parameters are matched by position, as torch does.
    Names are compared as `bare_names`, so that a model may be compiled or wrapped on one side only.
    Settings that a saved group does not have, as that of another class or version, stay.

    >>> a, b = (torch.nn.Parameter(torch.ones(2)) for _ in "ab")
    >>> saved = torch.optim.SGD([("a", a), ("b", b)]).state_dict()
    >>> optimizer = torch.optim.SGD([("b", b), ("a", a)])
    >>> handle = optimizer.register_load_state_dict_pre_hook(load_by_name)
    >>> optimizer.load_state_dict(saved)

    Args:
        optimizer: What is loaded.
        state_dict: What `optimizer.state_dict()` returned.

    Returns:
        A state dict in the optimizer's order; None where there is nothing to do.

    Raises:
        ValueError: If the names are not the same on both sides, or parameters of one group here
            were saved from several.
    """
    groups, loaded = optimizer.param_groups, state_dict
    sides = groups, state_dict["param_groups"]
    here, there = ([group.get("param_names") for group in side] for side in sides)
    if None not in here + there and here != there:
        loaded = _reordered(groups, there, loaded)
    pairs = list(zip(groups, loaded["param_groups"], strict=False))
    lacks = any(own.keys() - saved.keys() - {"param_names"} for own, saved in pairs)
    if lacks and len(groups) == len(loaded["param_groups"]):  # torch refuses another number
        loaded = {**loaded, "param_groups": [{**own, **saved} for own, saved in pairs]}
    return None if loaded is state_dict else loaded


def load_in_our_words(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Does the same for a class of this package, which also loads state of torch's classes."""
    state_dict = in_our_words(state_dict)
    return load_by_name(optimizer, state_dict) or state_dict


def _reordered(groups: list[Any], names: list[Any], state_dict: dict[str, Any]) -> dict[str, Any]:
    found = saved_by_name([n for g in groups for n in g["param_names"]], names, state_dict)
    ordered, states = [], []
    for group in groups:
        names, sources = list(group["param_names"]), sources_of(group, found)
        if len(sources) > 1:
            raise ValueError(
                f"The parameters {', '.join(names)} are one group here, and were saved from "
                f"{len(sources)} groups with settings of their own."
            )
        source = sources[0][0] if sources else group
        ordered.append({**source, "param_names": names})
        states += [found[name].state for name in names]
    return numbered(state_dict, ordered, states)


def numbered(state_dict: Group, groups: Iterable[Group], states: Sequence[Any]) -> dict[str, Any]:
    """Returns a state dict of groups, and of the states of their parameters, in this order."""
    count = itertools.count()
    groups = [{**group, "params": [next(count) for _ in group["param_names"]]} for group in groups]
    kept = {index: state for index, state in enumerate(states) if state}
    return {**state_dict, "state": kept, "param_groups": groups}


def saved_by_name(
    here: Sequence[str], names: Sequence[Sequence[str]], state_dict: Mapping[str, Any]
) -> dict[str, Saved]:
    """Returns what was saved of the parameters that have names here, by these.

    `names` are those of the parameters of each saved group. A model may have been compiled or
    wrapped on one side only.
    """
    own_name = dict(zip(bare_names(here), here, strict=True))
    bare = iter(bare_names([name for group in names for name in group]))
    found = {}
    for group in state_dict["param_groups"]:
        for index in group["params"]:
            name = next(bare)
            found[own_name.get(name, name)] = Saved(group, state_dict["state"].get(index, {}))
    missing, left = sorted({*here} - {*found}), sorted({*found} - {*here})
    if missing or left:
        told = {"Missing": missing, "Left over": left}
        texts = [f"{word}: {names}." for word, names in told.items() if names]
        raise ValueError(f"The loaded state belongs to other parameters. {' '.join(texts)}")
    return found


def sources_of(group: Group, found: Mapping[str, Saved]) -> Sources:
    """Returns the saved groups from which the parameters of a group come, with their names."""
    sources: dict[int, tuple[Group, list[str]]] = {}
    for name in group["param_names"]:
        saved = found[name].group
        sources.setdefault(id(saved), (saved, []))[1].append(name)
    return list(sources.values())


def bare_names(names: Sequence[str], model: torch.nn.Module | None = None) -> list[str]:
    """Returns names as they are in the model itself, for one that is wrapped or compiled.

    `module._orig_mod.head.weight` is `head.weight`. A `module` is a wrapper's where the model shows
    that it is; where only names are known, if all of them start with it.
    """
    modules = () if model is None else model.named_modules()
    wrappers = [name for name, module in modules if is_wrapper(module)]
    wrapped = [[*filter(None, name.split(".")), _MODULE] for name in wrappers]
    bare = []
    for each in (name.split(".") for name in names):
        dropped = {len(path) - 1 for path in wrapped if each[: len(path)] == path}
        own = [x for i, x in enumerate(each) if i not in dropped and x not in _PRIVATE]
        bare.append(own or each)
    if model is None:
        while bare and all(len(each) > 1 and each[0] == _MODULE for each in bare):
            bare = [each[1:] for each in bare]
    joined = [".".join(each) for each in bare]
    return joined if len(set(joined)) == len(set(names)) else list(names)


def is_wrapper(module: Any) -> bool:
    """Says whether a module only wraps the one in its attribute `module`, to run it otherwise."""
    classes = {cls.__name__ for cls in type(module).__mro__}
    return bool(classes & _WRAPPERS) and isinstance(getattr(module, _MODULE, None), torch.nn.Module)


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Returns the model inside what compiles it or runs it on several devices."""
    while True:
        inner = model.module if is_wrapper(model) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, torch.nn.Module):
            return model
        model = inner
