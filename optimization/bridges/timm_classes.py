"""The classes of timm's own in our words: a function for each, which fills a draft."""

import fnmatch
from collections.abc import Callable
from typing import Any

from optimization.bridges import torch_classes
from optimization.bridges.draft import DIFFERS, LOST, NOTE, Draft, Source
from optimization.bridges.torch_classes import DEFAULTS as TORCH

_NO_MATRICES = r"(?i)bias|norm|(^|[./_])(bn|ln)\d*[./]|gamma|beta"


def nadamw(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = TORCH["AdamW"]
    kind = torch_classes.put_optimizer(draft, "AdamW", args)
    draft.put(f"optimizer.{kind}.nesterov", True, "opt")
    draft.put(f"optimizer.{kind}.nesterov_correction", "same", "as in timm")
    return kind


def adopt(decoupled: bool) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        args.defaults = {"betas": [0.9, 0.9999], "eps": 1e-6, "clip_exp": 0.333}
        args.defaults["decoupled_weight_decay"] = decoupled
        args.names = {"decoupled_weight_decay": "decoupled"}
        draft.put("optimizer.type", "adopt")
        place = "optimizer.adopt."
        torch_classes.put_betas(draft, place, args)
        draft.put(f"{place}epsilon", args.number("eps"))
        draft.put(f"{place}clip_exponent", args.number("clip_exp"))
        torch_classes.put_decay(draft, place, args, {})
        return "adopt"

    return make


def rmsprop_tf(decoupled: bool) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        args.defaults = {"alpha": 0.9, "eps": 1e-10, "centered": False}
        args.defaults["decoupled_weight_decay"] = decoupled
        args.names = {"decoupled_weight_decay": "decoupled_decay"}
        draft.put("optimizer.type", "rmsprop")
        place = "optimizer.rmsprop."
        for ours, theirs in (("rho", "alpha"), ("epsilon", "eps"), ("momentum", "momentum")):
            value = args.number(theirs)
            draft.put(place + ours, float(value.value), value.comment)
        if args.flag("centered"):
            draft.put(f"{place}centered", True, "centered")
        why = "timm's mean of squares starts from 1, here from 0: the first steps are larger here"
        draft.tell(DIFFERS, source, "opt", why, "a warmup of some epochs makes up for it")
        torch_classes.put_decay(draft, place, args, {})
        return "rmsprop"

    return make


def lion(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = {"betas": [0.9, 0.99]}
    draft.put("optimizer.type", "lion")
    torch_classes.put_betas(draft, "optimizer.lion.", args)
    if args.number("weight_decay").value:
        draft.put("optimizer.lion.weight_decay", args.number("weight_decay"))
    return "lion"


def lamb(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = {"betas": [0.9, 0.999], "eps": 1e-6, "max_grad_norm": 1.0}
    draft.put("optimizer.type", "lamb")
    place = "optimizer.lamb."
    torch_classes.put_betas(draft, place, args)
    draft.put(f"{place}epsilon", args.number("eps"))
    draft.put(f"{place}weight_decay_rate", args.number("weight_decay"))
    norm = args.number("max_grad_norm")
    if norm.value:
        draft.put(f"{place}global_clipnorm", float(norm.value), norm.comment)
    comment = "timm: what does not decay"
    draft.put(f"{place}exclude_from_layer_adaptation", [_NO_MATRICES], comment)
    why = "which weights have no rate of their own goes by names here, and by their decay in timm"
    draft.tell(NOTE, source, "opt", why)
    return "lamb"


def adafactor(beta: float | None = None) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        args.defaults = {"eps": 1e-30, "decay_rate": 0.8, "clip_threshold": 1.0}
        draft.put("optimizer.type", "adafactor")
        place = "optimizer.adafactor."
        draft.put(f"{place}variant", "timm", "opt")
        draft.put(f"{place}step_size", "absolute", "as timm with a rate")
        draft.put(f"{place}epsilon1", args.number("eps"))
        if "betas" in args.links or args.has("betas"):
            betas = args.numbers("betas")
            if not betas.value:
                args.refuse("betas", "expected a list of numbers, got none")
            draft.put(f"{place}beta1", float(betas.value[0]), f"{betas.comment}[0]")
        elif beta is not None:
            draft.put(f"{place}beta1", beta, "opt")
        if args.number("weight_decay").value:
            draft.put(f"{place}weight_decay", args.number("weight_decay"))
        return "adafactor"

    return make


def ademamix(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = {"betas": [0.9, 0.999, 0.9999], "alpha": 5.0, "eps": 1e-8}
    draft.put("optimizer.type", "ademamix")
    place = "optimizer.ademamix."
    betas = args.numbers("betas", 3)
    for index, value in enumerate(betas.value):
        draft.put(f"{place}beta_{index + 1}", float(value), f"{betas.comment}[{index}]")
    for ours, theirs in (("alpha", "alpha"), ("epsilon", "eps"), ("weight_decay", "weight_decay")):
        draft.put(place + ours, args.number(theirs))
    for ours, theirs in (("alpha_warmup", "t_alpha"), ("beta_3_warmup", "t_beta3")):
        if args.has(theirs):
            draft.put(place + ours, args.whole(theirs))
    return "ademamix"


def nadam_legacy(draft: Draft, source: Source, args: Source) -> str:
    """Puts `NAdamLegacy`, which is torch's NAdam under another name of its decay."""
    args.defaults = {**TORCH["NAdam"], "schedule_decay": 4e-3}
    kind = torch_classes.put_optimizer(draft, "NAdam", args)
    draft.put(f"optimizer.{kind}.momentum_decay", args.number("schedule_decay"))
    return kind


def sgdw(draft: Draft, source: Source, args: Source) -> str:
    args.defaults = {"momentum": 0.9, "dampening": 0, "nesterov": True}
    draft.put("optimizer.type", "sgd")
    place = "optimizer.sgd."
    draft.put(f"{place}momentum", args.number("momentum"))
    draft.put(f"{place}nesterov", args.flag("nesterov"), "opt")
    if args.number("weight_decay").value:
        draft.put(f"{place}weight_decay", args.number("weight_decay"))
    if args.number("dampening").value:
        draft.tell(LOST, args, "dampening", "the momentum here takes the whole gradient")
    if args.number("momentum").value:
        why = "a gradient keeps the rate of its own step here, and takes that of each step in timm"
        draft.tell(DIFFERS, source, "opt", f"while the rate is the same, so is this; {why}")
    return "sgd"


def lars(nesterov: bool) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        args.defaults = {"momentum": 0.0, "trust_coeff": 0.001, "nesterov": nesterov}
        draft.put("optimizer.type", "lars")
        place = "optimizer.lars."
        draft.put(f"{place}momentum", args.number("momentum"))
        draft.put(f"{place}eeta", args.number("trust_coeff"))
        draft.put(f"{place}nesterov", args.flag("nesterov"), "opt")
        draft.put(f"{place}weight_decay_rate", args.number("weight_decay"))
        args.take("eps")
        if args.flag("trust_clip"):
            why = "the ratio here has no bound by the rate"
            draft.tell(LOST, args, "trust_clip", why, "use `lars` or `nlars`")
        if not args.flag("always_adapt"):
            comment = "timm: what does not decay"
            draft.put(f"{place}exclude_from_layer_adaptation", [_NO_MATRICES], comment)
        why = "its ratio is over |g| + weight_decay |w|, here over |g + weight_decay w|"
        draft.tell(DIFFERS, source, "opt", why)
        return "lars"

    return make


def muon(**defaults: Any) -> Callable:
    """Returns what puts timm's Muon, by these arguments unless the file has others."""

    def make(draft: Draft, source: Source, args: Source) -> str:
        args.defaults = {**_MUON, **defaults}
        _muon(draft, source, args)
        return "muon"

    return make


def _muon(draft: Draft, source: Source, args: Source) -> None:
    draft.put("optimizer.type", "muon")
    place = "optimizer.muon."
    draft.put(f"{place}variant", "timm", "opt")
    for key in ("momentum", "weight_decay"):
        draft.put(place + key, args.number(key))
    draft.put(f"{place}nesterov", args.flag("nesterov"), "opt")
    draft.put(f"{place}ns_steps", args.positive("ns_steps"))
    draft.put(f"{place}safety_factor", args.number("safety_factor"))
    _coefficients(draft, place, args)
    algorithm = args.text("algo").value
    if algorithm == "adamuon":
        _adamuon(draft, place, args)
    elif algorithm == "muon":
        _scale(draft, place, args, SCALES)
    else:
        args.refuse("algo", f"expected muon or adamuon, got {algorithm!r}")
    if args.text("conv_mode").value != "flatten":
        why = "a kernel of a convolution is one matrix here, not one for each position"
        draft.tell(LOST, args, "conv_mode", why)
    args.take("normalize_spatial")
    if args.flag("scale_eps"):
        why = "the norm by which a matrix is divided has no epsilon by its shape here"
        draft.tell(LOST, args, "scale_eps", why)
    for key in ("verbose", "capturable"):
        args.take(key)
    _what_is_orthogonal(draft, source, place, args)
    _beside_muon(draft, place, source, args)


_MUON = {
    **{"momentum": 0.95, "nesterov": False, "ns_steps": 5, "ns_coefficients": "quintic"},
    **{"eps": 1e-7, "safety_factor": 1.0, "adjust_lr_fn": "match_rms_adamw", "algo": "muon"},
    **{"conv_mode": "flatten", "fallback_lr_scale": 1.0, "betas": [0.9, 0.95]},
}
SCALES: dict[str | None, dict[str, Any]] = {
    "match_rms_adamw": {"scale": "spectral", "rms_rate": 0.2},
    "original": {"scale": "shape", "rms_rate": 1.0},
    "rms_to_rms": {"scale": "unit_rms", "rms_rate": 1.0},
    None: {"rms_rate": None},
}
"""What `adjust_lr_fn` may be, and what it is here."""


def _scale(draft: Draft, place: str, args: Source, known: Any) -> None:
    # Null is none of it, and not the default.
    written = "adjust_lr_fn" in args.mapping and args.mapping["adjust_lr_fn"] is None
    name = None if written else args.text("adjust_lr_fn").value
    args.take("adjust_lr_fn")
    if name not in known:
        expected = ", ".join(str(name) for name in known)
        if name not in (*SCALES, "rsqrt_in"):
            args.refuse("adjust_lr_fn", f"expected one of {expected}, got {name!r}")
        why = f"with `second_moment: full` the norm of a step is that of {expected} alone here"
        draft.tell(LOST, args, "adjust_lr_fn", why)
        return
    for field, value in known[name].items():
        draft.put(place + field, value, args.path("adjust_lr_fn"))


def _adamuon(draft: Draft, place: str, args: Source) -> None:
    draft.put(f"{place}second_moment", "full", "adamuon")
    draft.put(f"{place}update_norm", "orthogonal", "adamuon")
    draft.put(f"{place}second_moment_beta", float(args.numbers("betas", 2).value[1]), "betas[1]")
    draft.put(f"{place}epsilon", args.number("eps"))
    _scale(draft, place, args, {"match_rms_adamw": SCALES["match_rms_adamw"]})


def _coefficients(draft: Draft, place: str, args: Source) -> None:
    taken = args.take("ns_coefficients")
    names = {"quintic": "quintic", "original": "simple", **_LISTS}
    named = isinstance(taken.value, str)
    value = names.get(taken.value) if named else torch_classes.rows_of_three(taken.value)
    if value is None:
        expected = f"one of {', '.join(names)}, or three numbers, or lists of three"
        args.refuse("ns_coefficients", f"expected {expected}, got {taken.value!r}")
    draft.put(f"{place}coefficients", value, taken.comment)


_LISTS = {
    "polar_express": [
        [8.237312490495555, -23.157747414558198, 16.680568411445915],
        [4.082441999064835, -2.893047735332586, 0.5252849256975648],
        [3.9263479922546582, -2.8547468034765298, 0.5318022422894988],
        [3.2982187133085143, -2.424541981026706, 0.48632008358844075],
        [2.2970369434552573, -1.63662558125903, 0.4002628455953627],
        [1.8763805351440397, -1.2347896577722228, 0.35891887501668385],
        [1.8564423485617974, -1.2132449880935525, 0.3568003487825883],
        [1.8749994008682747, -1.2499988017229169, 0.3749994008546422],
    ],
    "polar_express_safer": [
        [8.156554524902461, -22.48329292557795, 15.878769915207462],
        [4.0429299351667245, -2.808917465908704, 0.5000178451051299],
        [3.8916678022926563, -2.7724841532176825, 0.5060648178503389],
        [3.285753657755658, -2.3681294933425394, 0.46449024233003117],
        [2.3005307116270983, -1.6111665557258408, 0.3833374427545273],
        [1.8631210546382593, -1.2042160621002727, 0.3421879560523383],
        [1.8382572152247512, -1.1779263289537742, 0.3396513038637379],
        [1.8749999923301852, -1.2499999836060613, 0.374999991275876],
    ],
}
"""The lists of timm that are no names here, of each iteration."""


def _what_is_orthogonal(draft: Draft, source: Source, place: str, args: Source) -> None:
    comment = "timm spares no embeddings and heads but those of its `fallback_list`"
    draft.put(f"{place}include_layers", ["."], comment)
    spared = args.take("fallback_list").value
    spared = [spared] if isinstance(spared, str) else spared or []
    if not isinstance(spared, list | tuple) or not all(isinstance(name, str) for name in spared):
        args.refuse("fallback_list", f"expected a list of names, got {spared!r}")
    if spared:
        patterns = [f"^{fnmatch.translate(name)}" for name in spared]
        draft.put(f"{place}exclude_layers", patterns, args.path("fallback_list"))
    if args.flag("fallback_no_weight_decay"):
        why = "which parameters the model's `no_weight_decay()` names is not in the file"
        draft.tell(LOST, args, "fallback_no_weight_decay", why, "add them to `exclude_layers`")
    why = (
        "AdamW has what has a side below 4, or is 128 times as long as wide, in timm, and Muon here"
    )
    draft.tell(NOTE, source, "opt", why, "name such matrices in `exclude_layers`")


def _beside_muon(draft: Draft, place: str, source: Source, args: Source) -> None:
    """Puts the AdamW of what is no matrix, which is NAdamW where Muon has Nesterov's momentum."""
    draft.put(f"{place}auxiliary.type", "adamw", "timm's for what is no matrix")
    own = f"{place}auxiliary.adamw."
    torch_classes.put_betas(draft, own, args)
    draft.put(f"{own}epsilon", args.number("eps"))
    draft.put(f"{own}epsilon_placement", "corrected", "as in torch")
    draft.put(f"{own}weight_decay_rate", args.number("weight_decay"))
    if args.flag("nesterov"):
        draft.put(f"{own}nesterov", True, "timm's for Nesterov's Muon")
        draft.put(f"{own}nesterov_correction", "same", "as in timm")
    scale, own_rate, rate = args.number("fallback_lr_scale"), args.number("adamw_lr"), None
    if own_rate.value is not None:
        rate = source.number("lr").value
        if not rate:
            why = "it is over `lr`, which is not in the file"
            draft.tell(LOST, args, "adamw_lr", why, "write `learning_rate_multiplier`")
            return
        scale = own_rate._replace(value=own_rate.value / rate, comment="adamw_lr / lr")
    draft.put(f"{place}auxiliary.learning_rate_multiplier", scale)


def mars(draft: Draft, source: Source, args: Source) -> str:
    """Puts MARS, which is a modifier of AdamW and of Lion, and the AdamW of vectors beside it."""
    args.defaults = {"betas": [0.9, 0.99], "eps": 1e-8, "gamma": 0.025, "mars_type": "adamw"}
    args.defaults |= {"lr_1d_factor": 1.0}
    kind = args.text("mars_type").value
    if kind not in ("adamw", "lion"):
        args.refuse("mars_type", f"expected adamw or lion, got {kind!r}")
    place = f"optimizer.{kind}."
    draft.put("optimizer.type", kind, args.path("mars_type") if args.has("mars_type") else "opt")
    section = _adamw_of(args)
    if kind == "adamw":
        for name, value in section.items():
            draft.put(place + name, value, "opt")
    else:
        for name in ("beta_1", "beta_2"):
            draft.put(place + name, section["beta_1"], "betas[0]: of both means")
        if args.number("weight_decay").value:
            draft.put(f"{place}weight_decay", args.number("weight_decay"))
    draft.put(f"{place}mars", True, "opt")
    draft.put(f"{place}mars_gamma", args.number("gamma"))
    factor, of_vectors = args.number("lr_1d_factor"), args.take("betas_1d").value
    if args.flag("optimize_1d"):
        return kind
    if of_vectors is not None:
        of_vectors = args.numbers("betas_1d", 2).value
        section |= {f"beta_{n}": float(beta) for n, beta in enumerate(of_vectors, 1)}
    group: dict[str, Any] = {"name": "vectors", "ndim": [0, 1]}
    if factor.value != 1:
        group["learning_rate_multiplier"] = factor.value
    group["optimizer"] = {"type": "adamw", "adamw": section}
    draft.put("param_groups", [group], "timm: vectors are AdamW's, without MARS")
    return kind


def _adamw_of(args: Source) -> dict[str, Any]:
    """Returns the settings of an AdamW with the numbers of a class of timm."""
    betas = args.numbers("betas", 2).value
    section: dict[str, Any] = {"beta_1": float(betas[0]), "beta_2": float(betas[1])}
    section |= {"epsilon": args.number("eps").value, "epsilon_placement": "corrected"}
    return {**section, "weight_decay_rate": args.number("weight_decay").value or 0.0}
