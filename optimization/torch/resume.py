"""Loading a saved state into an optimizer that the factory built."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optimization.configs.errors import Problem, warn
from optimization.matching.rules import DEFAULT
from optimization.torch.by_name import Group, Saved, Sources, numbered, saved_by_name, sources_of
from optimization.torch.foreign import (
    algorithm_of,
    factored_as_here,
    in_our_words,
    settings_in_our_words,
)
from optimization.torch.spikes import KEPT

if TYPE_CHECKING:
    from optimization.torch.extended import Extended

TYPE = "optimizer_type"
STEP = "schedule_step"
_EXECUTION = ("foreach", "fused", "capturable", "differentiable")
OWN = (TYPE, STEP, "params", "param_names", "group_name", "rule", "decays", *KEPT)
RATES = ("initial_lr", "first_lr")
# The settings that say what a part of the state is, by that part.
_MEANINGS = {"momentum_buffer": "classic_momentum", "exp_avg": "momentum_of"}
_BESIDE = ("step", "master")  # the count, and the float32 copy of a weight of low precision
_SHOWN = 6
_ALIAS = "_experimental"  # the same optimizer by another name


def resume(optimizer: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Returns a state dict in the optimizer's order, with the settings that the optimizer has.

    It is a hook for `Optimizer.register_load_state_dict_pre_hook`. State is matched by the names of
    the parameters; where none were saved, by position. Groups may be others as long as the rules
    that made them have the same parameters. Settings of the config hold, the learning rate and all
    that is scheduled as of the step at which the state was saved; what differs from the saved
    settings is one `ConfigWarning`. The state may be
    that of a class of torch, transformers or this package for the same algorithm; any other is a
    `ValueError`.
    """
    missing = [key for key in ("state", "param_groups") if key not in state_dict]
    if missing:
        raise ValueError(
            f"The loaded state is not that of an optimizer: it has no {_quoted(missing)}. It has "
            f"{_some(list(map(str, state_dict))) or 'nothing'}. Load what `optimizer.state_dict()` "
            "returned."
        )
    saved = in_our_words(state_dict)
    found = _matched(optimizer, saved)
    notes = list(_check_types(optimizer.param_groups, saved["param_groups"], found))
    _check_rules(optimizer.param_groups, found)
    states, state_notes = _states(optimizer, found)
    counted = max({group.get(STEP) for group in saved["param_groups"]} - {None}, default=None)
    step = steps_done(counted, saved["state"].values())
    groups = [{**group, STEP: counted} for group in optimizer.param_groups]
    sources = [sources_of(group, found) for group in groups]
    for group, source in zip(groups, sources, strict=True):
        _take_over(optimizer, group, source)
    notes += optimizer.factory.set_step(groups, step, [s[0][0] for s in sources])
    notes += state_notes
    report([*_differences(groups, sources), *notes])
    return numbered(state_dict, groups, states)


def steps_done(scheduled: int | None, states: Iterable[Any]) -> int | None:
    """Returns how many steps the scheduler has counted, or else parameters; None if none has."""
    if scheduled is not None:
        return scheduled
    counts = [state["step"] for state in states if isinstance(state, Mapping) and "step" in state]
    return max((int(count) for count in counts), default=None)


def _check_types(
    groups: Sequence[Group], saved: Sequence[Group], found: Mapping[str, Saved]
) -> Iterable[str]:
    """Raises if another type was saved, of all or of a parameter; yields what is not sure."""
    kinds, types = _types(groups), _types(saved)
    here = ", ".join(kinds)
    if not set(map(_plain_type, types)) <= set(map(_plain_type, kinds)):
        raise ValueError(_other_type(f"`{', '.join(types)}`", here))
    for group in groups:
        kind = group.get(TYPE, groups[0][TYPE])
        own = algorithm_of(settings_in_our_words(group))
        for source, names in sources_of(group, found):
            where = f" for `{names[0]}`" if len(kinds) > 1 else ""
            there, algorithm = source.get(TYPE), algorithm_of(source)
            if there and _plain_type(there) != _plain_type(kind):
                raise ValueError(_other_type(f"`{there}`", kind, where))
            if not there and algorithm not in (None, own):
                raise ValueError(_other_type(f"{algorithm}, by its settings", kind, where))
    if not types:
        yield f"it does not say of which type it is, and was taken for `{here}`, which it fits"


def _types(groups: Iterable[Group]) -> list[str]:
    return sorted({group[TYPE] for group in groups if group.get(TYPE)})


def _plain_type(kind: str) -> str:
    return kind.removesuffix(_ALIAS)


def _other_type(saved: str, here: str, where: str = "") -> str:
    return (
        f"The loaded state{where} is that of another type of optimizer: it was saved from {saved}, "
        f"and this is `{here}`. Set `optimizer.type` to what was saved, or start without the state."
    )


def _matched(optimizer: "Extended", saved: dict[str, Any]) -> dict[str, Saved]:
    """Returns what was saved of each parameter, by the name that it has here."""
    names = []
    for group in saved["param_groups"]:
        # In distributed checkpoints parameters are numbered by their names.
        by_name = group["params"] and all(isinstance(index, str) for index in group["params"])
        names.append(group["params"] if by_name else group.get("param_names"))
    if None in names:
        names = _by_position(optimizer, saved["param_groups"])
    here = [name for group in optimizer.param_groups for name in group["param_names"]]
    return saved_by_name(here, names, saved)


def _by_position(optimizer: "Extended", saved: list[Group]) -> list[Sequence[str]]:
    """Returns names for groups that were saved without: of the groups here, as torch does.

    One group for all has the order of the model.
    """
    here = [group["param_names"] for group in optimizer.param_groups]
    if [len(names) for names in here] == [len(group["params"]) for group in saved]:
        return here
    if len(saved) == 1 and len(saved[0]["params"]) == len(optimizer.order):
        return [optimizer.order]
    raise ValueError(
        "The loaded state has no names of parameters, and its groups are not those that are here. "
        f"Parameters in the saved groups: {[len(group['params']) for group in saved]}; here: "
        f"{ {_label(i, g): len(g['params']) for i, g in enumerate(optimizer.param_groups)} }."
    )


def _check_rules(groups: list[Group], found: dict[str, Saved]) -> None:
    """Raises if the rules that made the groups had other parameters."""
    if not any("rule" in saved.group for saved in found.values()):
        return
    here = _members({name: g for g in groups for name in g["param_names"]})
    there = _members({name: saved.group for name, saved in found.items()})
    if sorted(map(sorted, here.values())) != sorted(map(sorted, there.values())):
        raise ValueError(
            f"The loaded state was saved with other parameter groups. Saved: {_described(there)}. "
            f"Here: {_described(here)}. Write the `param_groups` that were saved, or start without "
            "the state."
        )


def _members(groups: Mapping[str, Group]) -> dict[str, list[str]]:
    """Returns the parameters of each rule, given the group of each."""
    members: dict[str, list[str]] = {}
    for name, group in groups.items():
        members.setdefault(group.get("rule", DEFAULT), []).append(name)
    return members


def _described(members: Mapping[str, list[str]]) -> str:
    return "; ".join(f"`{rule}` ({_some(names)})" for rule, names in members.items())


def _label(number: int, group: Group) -> str:
    return group.get("group_name", f"group {number}")  # one that was added has no name


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _states(optimizer: "Extended", found: dict[str, Saved]) -> tuple[list[Any], list[str]]:
    """Returns the state of each parameter, and what is new or left out."""
    states, problems = [], []
    new: dict[str, list[str]] = {}
    for group in optimizer.param_groups:
        settings, updater = settings_in_our_words(group), optimizer.updater_of(group)
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            group_there, state = found[name]
            if state:
                # Of that, as much as the class keeps.
                state = factored_as_here(state, parameter.shape, group_there, settings)
                try:
                    state, note = _fitted(updater, parameter, group, state)
                    if note and not group_there.get(TYPE) and algorithm_of(group_there) is None:
                        raise _UnfitError(f"was saved with other state: here {note}")
                    _check_meaning(state, group_there, settings)
                except _UnfitError as problem:
                    problems.append(f"`{name}` {problem}")
                    continue
                if note:
                    new.setdefault(note, []).append(name)
            states.append(state)
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise ValueError("\n".join(["The loaded state does not fit:", *problems[:_SHOWN], *more]))
    return states, [f"{note} ({_some(names)})" for note, names in new.items()]


class _UnfitError(Exception):
    """What is wrong with the state of a parameter."""


def _fitted(
    optimizer: "Extended", parameter: Tensor, group: Group, state: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Returns what a parameter has here of the state, and what is new or left out."""
    kept = optimizer.fresh_state(torch.empty_like(parameter, device="meta"), group)
    if kept is None:
        return state, ""
    missing = [name for name in kept if name not in state]
    left = [name for name in state if name not in kept and name not in _BESIDE]
    if missing and (left or len(missing) == len(kept)):
        raise _UnfitError(f"was saved with {_quoted(left)}, and here has {_quoted(kept)}")
    for name, fresh in kept.items():
        if name in state and isinstance(state[name], Tensor) and state[name].shape != fresh.shape:
            sizes = f"{tuple(state[name].shape)}, and here is {tuple(fresh.shape)}"
            raise _UnfitError(f"was saved with `{name}` of shape {sizes}")
    notes = [f"{_quoted(missing)} starts anew"] if missing else []
    notes += [f"{_quoted(left)} is left out"] if left else []
    fitted = {name: value for name, value in state.items() if name not in left}
    if missing:
        first = optimizer.fresh_state(parameter, group) or {}
        fitted |= {name: first[name] for name in missing}
    return fitted, ", ".join(notes)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def _check_meaning(state: Group, there: Group, here: Group) -> None:
    for part, setting in _MEANINGS.items():
        old, new = (group.get(setting) for group in (there, here))
        if part in state and None not in (old, new) and old != new:
            raise _UnfitError(f"has another `{part}`: it was saved with {setting}={old}, not {new}")


def _take_over(optimizer: "Extended", group: dict[str, Any], sources: Sources) -> None:
    """Gives a group what was saved of it that is no setting: counts, and what others put there."""
    saved = sources[0][0]
    for name in getattr(optimizer.updater_of(group), "counts", ()):
        values = [source[name] for source, _ in sources if name in source]
        if any(value != values[0] for value in values):
            raise ValueError(
                f"The loaded state was saved from groups with different `{name}`, whose parameters "
                f"are one group here: {_some(group['param_names'])}."
            )
        if values:
            group[name] = values[0]
    for name in KEPT:
        group.pop(name, None)
        known = [source[name] for source, _ in sources if name in source]
        group |= {name: known[0]} if known else {}
    if saved.get(TYPE):
        settings = settings_in_our_words(group)
        others = {k: v for k, v in saved.items() if k not in {*settings, *group, STEP, "params"}}
        group |= others if len(sources) == 1 else {}


def _differences(groups: list[dict[str, Any]], sources: list[Sources]) -> list[str]:
    """Returns a line for each setting that was saved with another value."""
    lines: dict[str, list[str]] = {}
    for number, (group, own) in enumerate(zip(groups, sources, strict=True)):
        here = settings_in_our_words(group)
        for saved, names in own:
            label = _label(number, group) if len(own) == 1 else _some(names)
            for line in changes(saved, here):
                lines.setdefault(line, []).append(label)
    return [f"{line} ({_some(labels)})" for line, labels in lines.items()]


def changes(saved: Group, here: Group) -> list[str]:
    """Returns a line for each setting that both have, with another value."""
    both = [k for k in here if k in saved and k not in (*OWN, *RATES, *_EXECUTION)]
    return [
        f"{name}: {_plain(saved[name])} -> {_plain(here[name])}"
        for name in both
        if not _same(saved[name], here[name])
    ]


def report(lines: list[str], path: str = "optimizer") -> None:
    """Issues one `ConfigWarning` with what differs from the loaded state, if something does."""
    if lines:
        message = "the loaded state differs; the config holds (name: saved -> now):"
        warn(Problem("resumed", path, "\n  ".join([message, *lines])))


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _same(one: Any, other: Any) -> bool:
    one, other = _plain(one), _plain(other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6)  # a rate may be a float32 tensor
    return one == other
