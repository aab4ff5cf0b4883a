"""The optimizers of timm in our words: the names of `opt`, with their clips and decay."""

from collections.abc import Callable
from typing import Any

from optimization.bridges import timm_classes, torch_classes
from optimization.bridges.draft import DIFFERS, LOST, NOTE, UNKNOWN, Draft, Source, Taken
from optimization.bridges.hf import COUPLED_LION
from optimization.bridges.torch_classes import DEFAULTS as TORCH
from optimization.configs.errors import did_you_mean

_CHOOSE = "choose an `optimizer.type` (`optfactory list optimizers`)"
_VECTORS = {"name": "no_decay", "ndim": [0, 1], "weight_decay": 0.0}

MODIFIERS = {"caution": "cautious", "corrected_weight_decay": "corrected_weight_decay"}
"""Arguments of timm's classes, and the modifiers that they are."""
_CORRECTED = {
    **{"adamc": "adamw", "nadamc": "nadamw", "adoptc": "adoptw", "lionc": "lion"},
    **{"sgdc": "sgdw", "rmsproptfc": "rmsproptfw"},
}
_CAUTIOUS = ("adamw", "nadamw", "adopt", "adoptw", "lion", "lamb", "sgdw", "mars", "rmsproptf")
MODIFIED = {
    **{name: (base, ["corrected_weight_decay"]) for name, base in _CORRECTED.items()},
    **{f"c{name}": (name, ["caution"]) for name in _CAUTIOUS},
    **{f"c{n}": (base, [*MODIFIERS]) for n, base in _CORRECTED.items() if n != "rmsproptfc"},
    "cadafactor": ("cadafactor", ["caution"]),
}
"""Names of timm that mean another one with some of its modifiers, its arguments."""


def put_optimizer(draft: Draft, source: Source) -> None:
    """Puts the optimizer that `opt` names."""
    name = str(source.text("opt").value).lower()
    looks_ahead = name.startswith("lookahead_")
    name = name.removeprefix("lookahead_")
    name, modifiers = MODIFIED.get(name, (name, []))
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
        why = _UNAVAILABLE.get(name) or f"there is no `{name}` here{did_you_mean(name, _NAMES)}"
        draft.tell(LOST, source, "opt", why, _CHOOSE)
        own = ("opt_eps", "opt_betas", "momentum", "weight_decay")
        draft.lose(source, (*own, "clip_grad", "clip_mode", "grad_accum_steps"))
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
    for key, field in MODIFIERS.items():
        if args.flag(key) or (key in modifiers and not args.has(key)):
            _modify(draft, kind, field, args.path(key) if args.has(key) else "opt")
    if looks_ahead:
        draft.put(f"optimizer.{kind}.lookahead", True, "opt")
        draft.put(f"optimizer.{kind}.lookahead_steps", 6, "timm")
        why = "timm's slow weights start as the weights after 6 updates, and here as the first ones"
        draft.tell(DIFFERS, source, "opt", why)
    for key in args.unread():
        if key not in ("foreach", "fused", "capturable") or args.take(key).value is True:
            draft.tell(UNKNOWN, args, key, f"`{name}` has no such argument here")


_LINKS = {"weight_decay": "weight_decay", "momentum": "momentum", "eps": "opt_eps"}


def _modify(draft: Draft, kind: str, field: str, comment: str) -> None:
    """Puts a modifier, of groups with an optimizer of their own too."""
    draft.put(f"optimizer.{kind}.{field}", True, comment)
    for group in draft.values.get("param_groups", ()):
        if "optimizer" in group:
            group["optimizer"][group["optimizer"]["type"]][field] = True


def _spare(draft: Draft, source: Source, kind: str) -> None:
    """Adds the group of what has fewer than two axes, which timm does not decay."""
    section = draft.values["optimizer"].get(kind, {})
    if not any("weight_decay" in name for name in section):
        return
    comment = "timm: biases, norms and scales do not decay"
    groups = draft.values.get("param_groups", [dict(_VECTORS)])
    for group in groups:  # of MARS it is there
        group.setdefault("weight_decay", 0.0)
    draft.put("param_groups", groups, draft.comments.get("param_groups", comment))
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


def _of_bitsandbytes(name: str) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        is_small = "8bit" in str(source.text("opt").value)
        if name == "lion":
            kind = timm_classes.lion(draft, source, args)
            if args.number("weight_decay").value and not is_small:
                draft.tell(DIFFERS, source, "weight_decay", COUPLED_LION)
        elif name == "sgd":  # which has no Nesterov's momentum, whatever it is told
            kind = _torch("SGD", nesterov=False)(draft, source, args)
        elif name == "ademamix":
            kind = timm_classes.ademamix(draft, source, args)
        else:
            args.defaults = TORCH["AdamW"]
            kind = torch_classes.put_optimizer(draft, "AdamW", args)
            draft.put(f"optimizer.{kind}.weight_decay_order", "after", "as in bitsandbytes")
        if is_small:
            why = "the formula is the same; its state has 8 bits there and 32 here"
            draft.tell(DIFFERS, source, "opt", why)
        return kind

    return make


_OPTIMIZERS: dict[str, Callable[[Draft, Source, Source], str]] = {
    **dict.fromkeys(("sgd", "nesterov", "fusedsgd"), _torch("SGD", nesterov=True)),
    **dict.fromkeys(("momentum", "fusedmomentum"), _torch("SGD", nesterov=False)),
    **dict.fromkeys(("sgdw", "nesterovw"), timm_classes.sgdw),
    **dict.fromkeys(("adam", "fusedadam"), _torch("Adam")),
    **dict.fromkeys(("adamw", "fusedadamw", "adamwlegacy"), _torch("AdamW")),
    **dict.fromkeys(("bnbadam", "bnbadam8bit"), _of_bitsandbytes("adam")),
    **dict.fromkeys(("bnbadamw", "bnbadamw8bit"), _of_bitsandbytes("adam")),
    **dict.fromkeys(("bnblion", "bnblion8bit"), _of_bitsandbytes("lion")),
    **dict.fromkeys(("bnbsgd", "bnbsgd8bit"), _of_bitsandbytes("sgd")),
    **dict.fromkeys(("bnbademamix", "bnbademamix8bit"), _of_bitsandbytes("ademamix")),
    "nadam": _torch("NAdam"),
    "nadamlegacy": timm_classes.nadam_legacy,
    "nadamw": timm_classes.nadamw,
    "radam": _torch("RAdam"),
    **dict.fromkeys(("radamw", "radamlegacy"), _torch("RAdam", decoupled_weight_decay=True)),
    "adopt": timm_classes.adopt(False),
    "adoptw": timm_classes.adopt(True),
    "adamax": _torch("Adamax"),
    "adadelta": _torch("Adadelta"),
    "adagrad": _torch("Adagrad"),
    "rmsprop": _torch("RMSprop", alpha=0.9),
    "rmsproptf": timm_classes.rmsprop_tf(False),
    "rmsproptfw": timm_classes.rmsprop_tf(True),
    "lion": timm_classes.lion,
    **dict.fromkeys(("lamb", "fusedlamb"), timm_classes.lamb),
    "lars": timm_classes.lars(False),
    "nlars": timm_classes.lars(True),
    "adafactor": timm_classes.adafactor(),
    "cadafactor": timm_classes.adafactor(beta=0.9),
    "mars": timm_classes.mars,
    "muon": timm_classes.muon(),
    "nmuon": timm_classes.muon(nesterov=True),
    "adamuon": timm_classes.muon(algo="adamuon"),
    "nadamuon": timm_classes.muon(algo="adamuon", nesterov=True),
}
_NAMES = (*_OPTIMIZERS, *MODIFIED)
_CLIPPED_RATIO = "there is no ratio here with a bound: `{}` is the same without it"
_DECAY_OF_LAMB = "the decay of LAMB is a part of what its ratio is of, here: that is `lamb`"
_UNAVAILABLE = {
    **{name: _CLIPPED_RATIO.format(base) for name, base in (("larc", "lars"), ("nlarc", "nlars"))},
    "lambc": _CLIPPED_RATIO.format("lamb"),
    **dict.fromkeys(("lambw", "lambcw", "lambcd", "clambw"), _DECAY_OF_LAMB),
}
"""Other names of timm, and why there is nothing here."""
