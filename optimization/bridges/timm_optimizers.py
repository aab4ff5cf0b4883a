"""The optimizers of timm in our words: the names of `opt`, with their clips and decay."""

from collections.abc import Callable
from typing import Any

from optimization.bridges import torch_classes
from optimization.bridges.draft import DIFFERS, LOST, NOTE, UNKNOWN, Draft, Source, Taken
from optimization.bridges.torch_classes import DEFAULTS as TORCH
from optimization.configs.errors import did_you_mean

_CHOOSE = "choose an `optimizer.type` (`optfactory list optimizers`)"
_VECTORS = {"name": "no_decay", "ndim": [0, 1], "weight_decay": 0.0}

_MODIFIERS = {"caution": "cautious", "corrected_weight_decay": "corrected_weight_decay"}
_CORRECTED = {"adamc": "adamw", "nadamc": "nadamw", "adoptc": "adoptw", "lionc": "lion"}
_CAUTIOUS = ("adamw", "nadamw", "adopt", "adoptw", "lion", "lamb")
_MODIFIED = {
    **{name: (base, ["corrected_weight_decay"]) for name, base in _CORRECTED.items()},
    **{f"c{name}": (name, ["caution"]) for name in _CAUTIOUS},
    **{f"c{name}": (base, [*_MODIFIERS]) for name, base in _CORRECTED.items()},
}
"""Names of timm that mean another one with some of its modifiers."""


def put_optimizer(draft: Draft, source: Source) -> None:
    """Puts the optimizer that `opt` names."""
    name = str(source.text("opt").value).lower()
    looks_ahead = name.startswith("lookahead_")
    name = name.removeprefix("lookahead_")
    name, modifiers = _MODIFIED.get(name, (name, []))
    args = source.section("opt_kwargs")
    args.library = "timm"
    args.links = {
        key: (source, own)
        for key, own in {
            **_LINKS,
            **({"betas": "opt_betas"} if source.has("opt_betas") else {}),
        }.items()
        if not args.has(key) and (key not in ("eps",) or source.has("opt_eps"))
    }
    for key in ("opt_eps", "opt_betas", "momentum", "weight_decay"):
        source.take(key)
    make = _OPTIMIZERS.get(name)
    if make is None:
        why = f"there is no `{name}` here{did_you_mean(name, _OPTIMIZERS)}"
        draft.tell(LOST, source, "opt", why, _CHOOSE)
        for key in ("opt_eps", "opt_betas", "weight_decay", "clip_grad", "grad_accum_steps"):
            if source.has(key):
                draft.tell(LOST, source, key, "it stands in the section of the optimizer")
            source.take(key)
        source.take("clip_mode")
        return
    kind = make(draft, source, args)
    if source.number("weight_decay").value and kind != "adafactor_keras":
        _spare(draft, source, kind)
    _clip(draft, source, kind)
    steps = source.whole("grad_accum_steps")
    if steps.value != 1:
        draft.put(f"optimizer.{kind}.gradient_accumulation_steps", steps)
        why = "in a loop of PyTorch the loop accumulates: leave it out there"
        draft.tell(NOTE, source, "grad_accum_steps", why)
    for key, field in _MODIFIERS.items():
        if args.take(key).value is True:
            draft.put(f"optimizer.{kind}.{field}", args.take(key))
        elif key in modifiers:
            draft.put(f"optimizer.{kind}.{field}", True, "opt")
    if looks_ahead:
        draft.put(f"optimizer.{kind}.lookahead", True, "opt")
        draft.put(f"optimizer.{kind}.lookahead_steps", 6, "timm")
        why = "timm's slow weights start as the weights after 6 updates, and here as the first ones"
        draft.tell(DIFFERS, source, "opt", why)
    for key in args.unread():
        if key not in ("foreach", "fused", "capturable") or args.take(key).value is True:
            draft.tell(UNKNOWN, args, key, f"`{name}` has no such argument here")


_LINKS = {"weight_decay": "weight_decay", "momentum": "momentum", "eps": "opt_eps"}


def _spare(draft: Draft, source: Source, kind: str) -> None:
    """Adds the group of what has fewer than two axes, which timm does not decay."""
    section = draft.values["optimizer"].get(kind, {})
    if not any("weight_decay" in name for name in section):
        return
    draft.put("param_groups", [dict(_VECTORS)], "timm: biases, norms and scales do not decay")
    why = "timm also spares what the model's `no_weight_decay()` names, such as pos_embed"
    todo = "add `{match: pos_embed, weight_decay: 0}` to `param_groups`, where the model has them"
    draft.tell(NOTE, source, "weight_decay", why, todo)


def _clip(draft: Draft, source: Source, kind: str) -> None:
    clip, mode = source.number("clip_grad"), source.text("clip_mode")
    place = f"optimizer.{kind}."
    norm = draft.values["optimizer"][kind].get("global_clipnorm")
    if not clip.value:
        if kind == "adamw":
            draft.put(f"{place}gradient_clip_norm", 0.0, f"{clip.comment}: none")
        return
    if norm is not None and mode.value != "norm":
        why = f"`{kind}` of timm clips the global norm too, and there is one kind of clip here"
        draft.tell(LOST, source, "clip_mode", why)
        return
    if mode.value == "norm":
        value = clip.value if norm is None else min(norm, clip.value)
        torch_classes.put_clip(draft, kind, Taken(value, clip.comment))
        return
    if kind == "adamw":
        draft.put(f"{place}gradient_clip_norm", 0.0)
    field = {"value": "clipvalue", "agc": "adaptive_clip_factor"}.get(mode.value)
    if field is None:
        source.refuse("clip_mode", f"expected norm, value or agc, got {mode.value!r}")
    draft.put(place + field, clip)
    if field == "adaptive_clip_factor":
        why = "timm leaves the head out of adaptive clipping, here all units are clipped"
        draft.tell(DIFFERS, source, "clip_mode", why)


def _torch(name: str, **defaults: Any) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        args.defaults = {**TORCH[name], **defaults}
        return torch_classes.put_optimizer(draft, name, args)

    return make


def _nadamw(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = TORCH["AdamW"]
    kind = torch_classes.put_optimizer(draft, "AdamW", args)
    draft.put(f"optimizer.{kind}.nesterov", True, "opt")
    draft.put(f"optimizer.{kind}.nesterov_correction", "same", "as in timm")
    return kind


def _adopt(decoupled: bool) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        args.defaults = {"betas": [0.9, 0.9999], "eps": 1e-6, "clip_exp": 0.333}
        args.defaults["decoupled_weight_decay"] = decoupled
        draft.put("optimizer.type", "adopt")
        place = "optimizer.adopt."
        torch_classes.put_betas(draft, place, args)
        draft.put(f"{place}epsilon", args.number("eps"))
        draft.put(f"{place}clip_exponent", args.number("clip_exp"))
        torch_classes.put_decay(draft, place, args, {})
        return "adopt"

    return make


def _rmsprop_tf(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = {"alpha": 0.9, "eps": 1e-10, "centered": False}
    draft.put("optimizer.type", "rmsprop")
    place = "optimizer.rmsprop."
    for ours, theirs in (("rho", "alpha"), ("epsilon", "eps"), ("momentum", "momentum")):
        value = args.number(theirs)
        draft.put(place + ours, float(value.value), value.comment)
    if args.flag("centered"):
        draft.put(f"{place}centered", True, "centered")
    why = "timm's mean of squares starts from 1, and here from 0: the first steps are larger here"
    draft.tell(DIFFERS, source, "opt", why, "a warmup of some epochs makes up for it")
    torch_classes.put_decay(draft, place, args, {})
    return "rmsprop"


def _lion(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = {"betas": [0.9, 0.99]}
    draft.put("optimizer.type", "lion")
    torch_classes.put_betas(draft, "optimizer.lion.", args)
    if args.number("weight_decay").value:
        draft.put("optimizer.lion.weight_decay", args.number("weight_decay"))
    return "lion"


def _lamb(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = {"betas": [0.9, 0.999], "eps": 1e-6, "max_grad_norm": 1.0}
    draft.put("optimizer.type", "lamb")
    place = "optimizer.lamb."
    torch_classes.put_betas(draft, place, args)
    draft.put(f"{place}epsilon", args.number("eps"))
    draft.put(f"{place}weight_decay_rate", args.number("weight_decay"))
    norm = args.number("max_grad_norm")
    if norm.value:
        draft.put(f"{place}global_clipnorm", float(norm.value), norm.comment)
    spared = r"(?i)bias|norm|(^|[./_])(bn|ln)\d*[./]|gamma|beta"
    draft.put(f"{place}exclude_from_layer_adaptation", [spared], "timm: what does not decay")
    why = "which weights have no rate of their own goes by names here, and by their decay in timm"
    draft.tell(NOTE, source, "opt", why)
    return "lamb"


def _adafactor(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = {"eps": 1e-30, "decay_rate": 0.8, "clip_threshold": 1.0}
    draft.put("optimizer.type", "adafactor")
    place = "optimizer.adafactor."
    draft.put(f"{place}variant", "timm", "opt")
    draft.put(f"{place}step_size", "absolute", "as timm with a rate")
    draft.put(f"{place}epsilon1", args.number("eps"))
    if "betas" in args.links:
        draft.put(f"{place}beta1", float(args.take("betas").value[0]), "opt_betas[0]")
    if args.number("weight_decay").value:
        draft.put(f"{place}weight_decay", args.number("weight_decay"))
    return "adafactor"


_OPTIMIZERS: dict[str, Callable[[Draft, Source, Source], str]] = {
    **dict.fromkeys(("sgd", "nesterov", "fusedsgd"), _torch("SGD", nesterov=True)),
    **dict.fromkeys(("momentum", "fusedmomentum"), _torch("SGD", nesterov=False)),
    "adam": _torch("Adam"),
    "fusedadam": _torch("Adam"),
    "adamw": _torch("AdamW"),
    "fusedadamw": _torch("AdamW"),
    "nadam": _torch("NAdam"),
    "nadamw": _nadamw,
    "radam": _torch("RAdam"),
    "radamw": _torch("RAdam", decoupled_weight_decay=True),
    "adopt": _adopt(False),
    "adoptw": _adopt(True),
    "adamax": _torch("Adamax"),
    "adadelta": _torch("Adadelta"),
    "adagrad": _torch("Adagrad"),
    "rmsprop": _torch("RMSprop", alpha=0.9),
    "rmsproptf": _rmsprop_tf,
    "lion": _lion,
    "lamb": _lamb,
    "adafactor": _adafactor,
}
