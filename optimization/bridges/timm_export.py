"""The way back to timm: `args.yaml` of its train script, and what it can't say."""

from typing import Any

from optimization.bridges.draft import DIFFERS, LOST, NOTE, Finding
from optimization.bridges.hf_export import Export, tell_sections, tell_unsaid
from optimization.bridges.timm_muon_export import put_muon
from optimization.bridges.timm_optimizers import MODIFIED, MODIFIERS
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.types import Duration

_OPTIMIZERS = {
    **{"adamw": "adamw", "adamw_experimental": "adamw", "lion": "lion", "lamb": "lamb"},
    **{
        "adam": "adam",
        "adam_experimental": "adam",
        "nadam": "nadam",
        "adamax": "adamax",
        "rmsprop": "rmsprop",
    },
    **{"adadelta": "adadelta", "adagrad": "adagrad"},
}


def export(config: OptimizationConfig) -> tuple[dict[str, Any], list[Finding]]:
    """Returns the arguments of timm's train script by name, and what they can't say."""
    made = Export(config)
    modifiers = _optimizer(made)
    _rate(made)
    told = "clip_exponent leads_to" + ("" if made.values["sched_on_updates"] else " per")
    tell_unsaid(made, "timm's arguments have no such field", f"{told} {' '.join(modifiers)}")
    said = _sections(made)
    tell_sections(made, "timm's arguments have no such thing", said)
    return made.values, made.findings


def _optimizer(made: Export) -> tuple[str, ...]:
    """Puts the optimizer; returns the fields that are said beside those of every export."""
    kind = made.config.optimizer.type or ""
    section: Any = made.config.optimizer.get()
    place = f"optimizer.{kind}"
    decay = getattr(section, "weight_decay_rate", 0.0) or getattr(section, "weight_decay", 0.0)
    if kind == "muon":
        said = put_muon(made, section)
        _tell_spared(made, place, made.values.get("weight_decay"))
        _clip(made, section, place)
        made.values["grad_accum_steps"] = section.gradient_accumulation_steps
        return said
    name = _name(kind, section, bool(decay))
    if name is None:
        made.tell(LOST, "optimizer.type", kind, "`opt` has no such optimizer")
        return ()
    name, modifiers = _modified(made, section, name, place)
    made.values["opt"] = name
    if hasattr(section, "beta_1"):
        made.values["opt_betas"] = [section.beta_1, section.beta_2]
    if hasattr(section, "epsilon"):
        made.values["opt_eps"] = section.epsilon
    if hasattr(section, "momentum"):
        made.values["momentum"] = section.momentum
    made.values["weight_decay"] = decay or 0.0
    kwargs: dict[str, Any] = {}
    if kind == "sgd" and name.endswith(("sgdw", "sgdc")) and not section.nesterov:
        kwargs |= {"nesterov": False}
    if section.mars and "mars" in modifiers:
        kwargs |= {"gamma": section.mars_gamma, "optimize_1d": True}
    if kind == "rmsprop":
        kwargs |= {"alpha": section.rho, "centered": section.centered}
    if kind == "adopt":
        kwargs |= {"clip_exp": section.clip_exponent}
    if kind == "adagrad":
        initial = section.initial_accumulator_value
        kwargs |= {"initial_accumulator_value": initial}
    _tell_spared(made, place, decay)
    if kind == "rmsprop" and section.momentum and section.classic_momentum:
        why = "timm applies the rate after the momentum"
        made.tell(DIFFERS, f"{place}.classic_momentum", True, why)
    if getattr(section, "weight_decay_order", "before") != "before":
        made.tell(DIFFERS, f"{place}.weight_decay_order", "after", "timm decays before the step")
    if not getattr(section, "correct_bias", True):
        made.tell(DIFFERS, f"{place}.correct_bias", False, "timm corrects the moments")
    if getattr(section, "amsgrad", False):
        kwargs |= {"amsgrad": True}
    if getattr(section, "nesterov", False) and ("amsgrad" in section.field_names()):
        why = "timm has NAdamW alone, with the correction of the `same` update"
        if name == "adam" or section.nesterov_correction != "same":
            made.tell(DIFFERS, f"{place}.nesterov", True, why)
    bare = MODIFIED.get(name.removeprefix("lookahead_"), (name.removeprefix("lookahead_"),))[0]
    decouples = bare in ("adamw", "nadamw", "radamw", "adoptw", "lion", "lamb", "sgdw", "mars")
    decouples = decouples or kind == "sgd_torch"
    if decay and not decouples and getattr(section, "decoupled_weight_decay", True):
        made.tell(DIFFERS, f"{place}.weight_decay", decay, "timm adds it to the gradient")
    if getattr(section, "epsilon_placement", "corrected") != "corrected":
        why = "timm adds epsilon to the corrected root"
        made.tell(DIFFERS, f"{place}.epsilon_placement", section.epsilon_placement, why)
    if getattr(section, "epsilon_in_sqrt", False):
        made.tell(DIFFERS, f"{place}.epsilon_in_sqrt", True, "timm adds epsilon to the root")
    if kind == "sgd" and section.momentum:
        why = "timm applies the rate after the momentum"
        made.tell(DIFFERS, f"{place}.momentum", section.momentum, why)
    if kwargs:
        made.values["opt_kwargs"] = kwargs
    _clip(made, section, place)
    made.values["grad_accum_steps"] = section.gradient_accumulation_steps
    return modifiers


def _tell_spared(made: Export, place: str, decay: float | None) -> None:
    """Tells where no group says which parameters do not decay in timm."""
    if decay and not any(_spares(group) for group in made.config.param_groups):
        why = "timm spares what has fewer than two axes, which here goes by names, or not at all"
        made.tell(DIFFERS, f"{place}.weight_decay", decay, why)


_NAMES = {(base, frozenset(arguments)): name for name, (base, arguments) in MODIFIED.items()}


def _modified(made: Export, section: Any, name: str, place: str) -> tuple[str, tuple[str, ...]]:
    """Returns timm's name of an optimizer with its modifiers, and the fields that it says."""
    said: list[str] = []
    if section.mars and name in ("adam", "adamw") and section.mars_beta is None:
        name, said = "mars", ["mars", "mars_gamma"]
    acts = {key: field for key, field in MODIFIERS.items() if getattr(section, field)}
    base = "adamw" if name == "adam" and section.decoupled_weight_decay else name
    found = _NAMES.get((base, frozenset(acts)))
    if found is not None:
        name, said = found, [*said, *acts.values()]
    if section.lookahead:
        name, said = f"lookahead_{name}", [*said, "lookahead", "lookahead_steps"]
        why = "timm's slow weights start as the weights after 6 updates, its number of updates"
        made.tell(DIFFERS, f"{place}.lookahead", True, why)
    return name, tuple(said)


def _spares(group: Any) -> bool:
    """Says whether a group is the one that timm makes by itself, and no more."""
    changed = {name for name, _ in group._changed()}
    own = group.ndim == (0, 1) and group.weight_decay == 0
    return own and changed <= {"ndim", "weight_decay", "name"}


def _name(kind: str, section: Any, decays: bool) -> str | None:
    """Returns what timm calls a type with these fields; None for none."""
    if kind == "sgd" and (decays or section.cautious):
        return "sgdw"
    if kind in ("sgd_torch", "sgd"):
        return "sgd" if section.nesterov else "momentum"
    if "amsgrad" in section.field_names():  # Adam in all its forms
        if decays and not section.decoupled_weight_decay:
            return "adam"
        if section.nesterov:
            return "nadamw"
        return "adamw" if decays else _OPTIMIZERS[kind]
    if kind in ("radam", "adopt"):
        return f"{kind}w" if section.decoupled_weight_decay else kind
    return _OPTIMIZERS.get(kind)


def _clip(made: Export, section: Any, place: str) -> None:
    norm = getattr(section, "gradient_clip_norm", 0.0) or section.global_clipnorm
    clips = {"norm": norm, "value": section.clipvalue, "agc": section.adaptive_clip_factor}
    for mode, value in clips.items():
        if value:
            made.values |= {"clip_grad": float(value), "clip_mode": mode}
    if section.clipnorm:
        made.tell(LOST, f"{place}.clipnorm", section.clipnorm, "timm clips no norm of a variable")


def _rate(made: Export) -> None:
    kind = made.config.learning_rate.type or ""
    section: Any = made.config.learning_rate.get()
    place = f"learning_rate.{kind}"
    warmup: Any = made.config.warmup.get()
    of_both = {part.per for part in (section, warmup) if part is not None}
    made.values["sched_on_updates"] = of_both != {"1 epoch"}
    if kind == "constant":
        made.values |= {"sched": "constant", "lr": section.learning_rate}
    elif kind in ("cosine", "linear", "polynomial"):
        made.values |= {"sched": "cosine" if kind == "cosine" else "poly"}
        made.values["lr"] = section.initial_learning_rate
        low = getattr(section, "end_learning_rate", None)
        low = section.alpha * section.initial_learning_rate if low is None else low
        made.values["min_lr"] = section.lowest(low)
        if kind != "cosine":
            made.values["decay_rate"] = getattr(section, "power", 1.0)
        made.values["epochs"] = _epochs(made, f"{place}.decay_steps", section.decay_steps)
    elif kind == "exponential" and section.staircase:
        made.values |= {"sched": "step", "lr": section.initial_learning_rate}
        made.values["decay_rate"] = section.decay_rate
        made.values["decay_epochs"] = _epochs(made, f"{place}.decay_steps", section.decay_steps)
        if section.min_learning_rate:
            why = "the schedule there has no lowest rate"
            made.tell(LOST, f"{place}.min_learning_rate", section.min_learning_rate, why)
    else:
        made.tell(LOST, "learning_rate.type", kind, "`sched` has no such schedule")
        return
    if getattr(section, "offset", 0):
        made.tell(LOST, f"{place}.offset", section.offset, "schedules of timm start at step 0")
    if getattr(section, "cycle", False):
        made.tell(LOST, f"{place}.cycle", True, "write `lr_cycle_limit` by hand")
    _warmup(made, kind)


def _warmup(made: Export, rate: str) -> None:
    warmup: Any = made.config.warmup.get()
    if warmup is None:
        made.values["warmup_epochs"] = 0
        return
    place = f"warmup.{made.config.warmup.type}"
    if made.config.warmup.type != "linear":
        made.tell(LOST, "warmup.type", made.config.warmup.type, "warmups of timm are lines")
        return
    made.values["warmup_epochs"] = _epochs(made, f"{place}.warmup_steps", warmup.warmup_steps)
    made.values["warmup_lr"] = warmup.warmup_learning_rate
    made.values["warmup_prefix"] = warmup.mode == "delay"
    meets = warmup.mode == "multiply" or (warmup.mode == "replace" and warmup.leads_to == "rate")
    if meets and rate not in ("constant", "exponential"):
        why = "timm's warmup leads to the full rate, and then falls to the decay's"
        made.tell(DIFFERS, f"{place}.mode", warmup.mode, why)


def _epochs(made: Export, place: str, value: Any) -> float | int | None:
    """Returns a number of epochs; tells of steps, which timm can't say."""
    if isinstance(value, Duration) and "epoch" in value:
        number = float(value.split()[0])
        return int(number) if number.is_integer() else number
    why = "lengths of timm are epochs"
    made.tell(LOST, place, str(value), why, "write it as '300 epochs', or the number of epochs")
    return None


def _sections(made: Export) -> tuple[str, ...]:
    """Says what timm has of the other sections; returns their names."""
    said = []
    config = made.config
    if config.ema is not None:
        said.append("ema")
        made.values |= {"model_ema": True, "model_ema_decay": config.ema.average_decay}
        growth, usual = config.ema.dynamic_decay, (config.ema.gamma, config.ema.power) == (1, 2 / 3)
        if growth == "power" and usual:
            made.values["model_ema_warmup"] = True
        elif growth:
            why = "timm's average has its decay from the start, or `model_ema_warmup`"
            made.tell(DIFFERS, "ema.dynamic_decay", growth, why, "write `power`, or false")
    if config.layer_decay is not None:
        said.append("layer_decay")
        made.values["layer_decay"] = config.layer_decay.rate
        if config.layer_decay.min_multiplier:
            made.values["layer_decay_min_scale"] = config.layer_decay.min_multiplier
        why = "which layers there are timm's models say themselves"
        made.tell(NOTE, "layer_decay.depth", config.layer_decay.depth, why)
    if config.lr_scaling is not None:
        said.append("lr_scaling")
        rate = made.values.pop("lr", None)
        made.values |= {"lr_base": rate, "lr_base_scale": config.lr_scaling.rule}
        made.values["lr_base_size"] = config.lr_scaling.base_batch_size
        for name, key in (("floor", "min_lr"), ("warmup_start", "warmup_lr")):
            if name in config.lr_scaling.scales and made.values.get(key):
                why = f"`{key}` is not in proportion to the batch there"
                made.tell(DIFFERS, "lr_scaling.scales", name, why, "write `scales: [peak]`")
    if config.param_groups and all(_spares(group) for group in config.param_groups):
        said.append("param_groups")
    return tuple(said)
