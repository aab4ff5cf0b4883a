"""Wrappers that hide the shapes of weights: the flat ones of FSDP1 and of DeepSpeed's ZeRO.

These are rows of numbers of many weights, of which each process has a part. Elementwise rules do
not mind; others, and clips by norms, would compute something else, and refuse.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from optimization.rules.modifiers import BY_VARIABLE
from optimization.rules.rule import given
from optimization.torch.resume import TYPE

_INSTEAD = "Shard by `fully_shard` (FSDP2), where everything works"
_TOTALS = ("gradient_clip_norm", "global_clipnorm")
_CLIPS = (*_TOTALS, "clipnorm", "adaptive_clip_factor")


def is_flat(parameter: Tensor) -> bool:
    """Says whether FSDP1 keeps a parameter as a part of a row of numbers."""
    return getattr(parameter, "_fsdp_flattened", False)


def shapes_of(optimizer: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of an optimizer's parameters, by name."""
    return {
        name: tuple(parameter.shape)
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }


def refuse_flat(optimizer: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a `ValueError` where what needs whole weights meets flat ones.

    Args:
        optimizer: What the factory built.
        shapes: Those that parameters had then, by name; DeepSpeed has others in their places.
    """
    flat = [group for group in optimizer.param_groups if _is_flat(group, shapes)]
    if not flat:
        return
    problems = list(_problems(optimizer, flat))
    if problems:
        raise ValueError(
            "Weights are flat here, rows of numbers that hide their shapes, as in FSDP1 and in "
            f"DeepSpeed's ZeRO. {' '.join(problems)}"
        )


def _is_flat(group: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    names, params = group.get("param_names", ()), group["params"]
    if any(map(is_flat, params)) or (names and len(names) != len(params)):
        return True
    known = zip(names, params, strict=False)
    return any(tuple(p.shape) != shapes.get(name, tuple(p.shape)) for name, p in known)


def _problems(optimizer: Any, groups: list[Any]) -> Iterator[str]:
    types: dict[Any, None] = {}
    modifiers: dict[str, None] = {}
    for group in groups:
        rule = getattr(optimizer.updater_of(group), "rule", None)
        if rule is not None and not rule.declared("elementwise"):
            types[group.get(TYPE)] = None
        modifiers |= dict.fromkeys(name for name in BY_VARIABLE if given(group.get(name)))
    for name in types:
        yield (
            f"`{name}` needs whole weights. {_INSTEAD}, or take a type that computes each number "
            "by itself, such as `adamw`."
        )
    for name in modifiers:
        yield f"`{name}` needs whole weights. {_INSTEAD}, or leave it out."
    spikes = optimizer.gradient_rules.skip_spikes
    by_norm = spikes is not None and "gradient_norm" in spikes.of
    needy = {"zclip": optimizer.gradient_rules.zclip is not None, "skip_spikes": by_norm}
    for name in [name for name, needs in needy.items() if needs]:
        yield f"`{name}` needs the norm over all gradients. {_INSTEAD}, or leave it out."
    rules = [each for each, _ in optimizer.gradient_rules.by_group(groups)]
    for name, bound in {(n, getattr(each, n)): None for each in rules for n in _CLIPS}:
        if bound and name in _TOTALS:
            yield (
                f"`{name}` needs the norm over all gradients: set it to 0 or null, and call "
                f"`model.clip_grad_norm_({bound})` of FSDP1 before `step()`, or give DeepSpeed "
                f"`gradient_clipping: {bound}`."
            )
        elif bound:
            yield f"`{name}` needs whole gradients. {_INSTEAD}, or leave it out."
