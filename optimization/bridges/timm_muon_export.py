"""Muon on the way back to timm: the arguments of its class, and what they can't say."""

from typing import Any

from optimization.bridges.draft import DIFFERS, LOST
from optimization.bridges.hf_export import Export
from optimization.bridges.timm_classes import SCALES

_SCALES = {own["scale"]: (name, own["rms_rate"]) for name, own in SCALES.items() if name}
_SAID = """
    variant momentum nesterov ns_steps safety_factor coefficients scale rms_rate momentum_kind
    of_signs second_moment second_moment_beta update_norm muon_a muon_b muon_c auxiliary
    adam_beta_1 adam_beta_2 adam_weight_decay adam_lr_ratio adam_nesterov epsilon
    include_layers exclude_layers exclude_embeddings ns_dtype
"""


def put_muon(made: Export, section: Any) -> tuple[str, ...]:
    """Puts `opt` and its arguments; returns the fields that it says or tells of."""
    place = "optimizer.muon"
    is_ada = (section.second_moment, section.update_norm) == ("full", "orthogonal")
    kept = {"momentum_kind": "ema", "of_signs": False, "second_moment": "none"}
    odd = [name for name, value in kept.items() if getattr(section, name) != value]
    if odd and not (is_ada and odd == ["second_moment"]):
        why = "`opt` has no Muon with it"
        made.tell(LOST, f"{place}.{odd[0]}", getattr(section, odd[0]), why)
        return tuple(_SAID.split())
    made.values["opt"] = f"{'n' if section.nesterov else ''}{'adamuon' if is_ada else 'muon'}"
    made.values |= {"momentum": section.momentum, "weight_decay": section.weight_decay or 0.0}
    rows = section.coefficients
    if rows == "simple":
        rows = [section.muon_a, section.muon_b, section.muon_c]
    elif rows == "polar_express":  # of which timm has another list
        from optimization.rules.newton_schulz import COEFFICIENTS

        rows = [list(row) for row in COEFFICIENTS["polar_express"]]
    name, rate = _SCALES[section.scale]
    if section.rms_rate not in (None, rate):
        why = f"`{name}` of timm has {rate}: it is the learning rate's matter there"
        made.tell(DIFFERS, f"{place}.rms_rate", section.rms_rate, why)
    if is_ada and (name, section.rms_rate) != ("match_rms_adamw", rate):
        why = "timm's AdaMuon has the scale `spectral` with 0.2 alone"
        made.tell(LOST, f"{place}.scale", section.scale, why)
    rows = rows if isinstance(rows, str) else [list(r) if isinstance(r, tuple) else r for r in rows]
    kwargs = {
        "ns_coefficients": rows,
        "ns_steps": section.ns_steps,
        "adjust_lr_fn": name if section.rms_rate else None,
    }
    made.values["opt_kwargs"] = {**kwargs, "safety_factor": section.safety_factor}
    _adamw(made, section, is_ada)
    if section.include_layers != (".",):
        why = "timm orthogonalizes embeddings and heads too, but those that `fallback_list` names"
        todo = "write `fallback_list` in `opt_kwargs`"
        made.tell(DIFFERS, f"{place}.include_layers", section.include_layers, why, todo)
    if section.exclude_layers:
        why = "the names of `fallback_list` have wildcards, not regular expressions"
        made.tell(LOST, f"{place}.exclude_layers", list(section.exclude_layers), why)
    return tuple(_SAID.split())


def _adamw(made: Export, section: Any, is_ada: bool) -> None:
    """Puts what timm's Muon takes of the AdamW beside it."""
    place, auxiliary = "optimizer.muon", section.auxiliary
    nesterov, decay = section.adam_nesterov, section.adam_weight_decay
    betas, epsilon = [section.adam_beta_1, section.adam_beta_2], section.epsilon
    ratio = section.adam_lr_ratio
    if auxiliary is not None:
        place += ".auxiliary"
        own = auxiliary.get()
        if auxiliary.type != "adamw" or auxiliary.learning_rate.type or auxiliary.also:
            made.tell(LOST, place, auxiliary.type, "timm's Muon has AdamW beside it, with its rate")
            return
        nesterov, decay = own.nesterov, own.weight_decay_rate
        betas, epsilon = [own.beta_1, own.beta_2], own.epsilon
        ratio = auxiliary.learning_rate_multiplier
    made.values |= {"opt_betas": betas, "opt_eps": epsilon}
    made.values["opt_kwargs"]["fallback_lr_scale"] = ratio
    if (decay or 0.0) != made.values["weight_decay"]:
        made.tell(DIFFERS, f"{place}.weight_decay", decay, "timm has one decay for both")
    if nesterov != section.nesterov:
        why = "timm's AdamW is NAdamW where its Muon has Nesterov's momentum, and only there"
        made.tell(DIFFERS, f"{place}.nesterov", nesterov, why)
    if is_ada and section.second_moment_beta != betas[1]:
        why = "timm has one decay for it and for AdamW's second moment"
        made.tell(DIFFERS, "optimizer.muon.second_moment_beta", section.second_moment_beta, why)
