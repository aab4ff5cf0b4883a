"""timm: `args.yaml`, which its train script writes. Formulas are those of timm 1.0.31."""

import math
from collections.abc import Mapping
from typing import Any

from optimization.bridges import timm_keys, timm_optimizers
from optimization.bridges.draft import DIFFERS, LOST, NOTE, Draft, Source, Taken
from optimization.bridges.epochs import check_rows, difference, percent, put_boundaries, put_table
from optimization.bridges.timm_export import export as export
from optimization.bridges.timm_rates import rate_function
from optimization.configs.errors import did_you_mean
from optimization.configs.yaml_file import SourcedDict

DEFAULTS: dict[str, Any] = {
    **{"opt": "sgd", "momentum": 0.9, "weight_decay": 2e-5, "clip_mode": "norm"},
    **{"sched": "cosine", "lr_base": 0.1, "lr_base_size": 256, "lr_base_scale": ""},
    **{"lr_cycle_mul": 1.0, "lr_cycle_decay": 0.5, "lr_cycle_limit": 1, "lr_k_decay": 1.0},
    **{"warmup_lr": 1e-5, "min_lr": 0.0, "epochs": 300, "decay_milestones": [90, 180, 270]},
    **{"decay_epochs": 90, "warmup_epochs": 5, "cooldown_epochs": 0, "patience_epochs": 10},
    **{"decay_rate": 0.1, "model_ema_decay": 0.9998, "grad_accum_steps": 1},
    **{"eval_metric": "top1", "batch_size": 128, "layer_decay_min_scale": 0.0},
}


def reads(mapping: Mapping[str, Any]) -> bool:
    """Says whether a mapping looks like timm's arguments."""
    own = {"opt", "sched", "lr_base", "opt_eps", "opt_betas", "warmup_lr", "decay_milestones"}
    own |= {"model_ema", "cooldown_epochs", "clip_mode", "sched_on_updates", "warmup_epochs"}
    return len(own & set(mapping)) >= 2


def convert(mapping: SourcedDict, file: str, exact: bool = False) -> Draft:
    """Returns our config of timm's arguments."""
    draft = Draft()
    source = Source(mapping, file, defaults=DEFAULTS, library="timm")
    timm_optimizers.put_optimizer(draft, source)
    base = _base_rate(draft, source)
    _schedule(draft, source, base, exact)
    _ema(draft, source)
    _layer_decay(draft, source)
    _not_here(draft, source)
    draft.sort_out(source, timm_keys.NO_MATTER, DEFAULTS)
    return draft


def _base_rate(draft: Draft, source: Source) -> Taken:
    """Returns the highest rate: `lr`, or `lr_base` in proportion to the batch."""
    rate, base, size = source.number("lr"), source.number("lr_base"), source.whole("lr_base_size")
    scale, world = source.text("lr_base_scale"), source.whole("world_size")
    batch, accumulated = source.whole("batch_size"), source.whole("grad_accum_steps")
    if rate.value is not None:
        return rate
    name = str(source.take("opt").value).lower()
    rule = scale.value or ("sqrt" if "ada" in name or "lamb" in name else "linear")
    if world.value:
        total = batch.value * world.value * accumulated.value
        ratio = total / size.value
        ratio = math.sqrt(ratio) if rule == "sqrt" else ratio
        comment = f"lr_base {base.value} for {size.value} examples, {rule}; {total} here"
        return Taken(base.value * ratio, comment)
    draft.put("lr_scaling.rule", rule, scale.comment if scale.value else f"timm's for {name}")
    draft.put("lr_scaling.base_batch_size", size)
    why = "the batch of all devices is not in the file, so the rate is in proportion to it"
    todo = "write `lr_scaling.global_batch_size`, if the trainer does not know it"
    draft.tell(NOTE, source, "lr_base", why, todo)
    absolute = [key for key in ("warmup_lr", "min_lr") if source.number(key).value]
    if source.text("sched").value == "plateau":  # of which all is scaled
        for key in absolute:
            why = "it is in proportion to the batch here, and not in timm"
            draft.tell(DIFFERS, source, key, why, "give `lr` instead of `lr_base`")
    elif absolute:
        draft.put("lr_scaling.scales", ["peak"], f"{' and '.join(absolute)} as they are")
    return base


def _schedule(draft: Draft, source: Source, base: Taken, exact: bool) -> None:
    kind = source.text("sched").value
    on_updates = source.flag("sched_on_updates")
    if kind == "plateau":
        _plateau(draft, source, base)
        return
    theirs = rate_function(source, float(base.value))
    if theirs is None:
        known = ("cosine", "tanh", "step", "multistep", "poly", "plateau", "constant", "none")
        why = f"there is no such schedule here{did_you_mean(kind, known)}"
        draft.tell(LOST, source, "sched", why, "choose a `learning_rate.type`")
        keys = ("lr", "lr_base", "min_lr", "warmup_epochs", "warmup_lr", "epochs")
        draft.lose(source, keys, "learning rate")
        return
    put = {"cosine": _cosine, "poly": _poly, "step": _step, "multistep": _multistep}.get(kind)
    put = _constant if kind in ("constant", "none") else put
    if put is not None and not (exact and not on_updates) and put(draft, source, base, on_updates):
        if not on_updates and kind in ("cosine", "poly"):
            place = f"learning_rate.{draft.values['learning_rate']['type']}"
            draft.put(f"{place}.per", "epoch", "not sched_on_updates")
        if kind != "none":
            _warmup(draft, source, on_updates)
        if _is_near(draft, source, theirs, on_updates):
            return
    if on_updates:
        why = "no type here has this formula, and it changes at each update"
        draft.tell(LOST, source, "sched", why, "choose a `learning_rate.type` near it")
        return
    check_rows(source, "sched", theirs.epochs)
    for name in ("learning_rate", "warmup"):
        draft.drop(name)
    rates = [theirs.rate(epoch) for epoch in range(theirs.epochs)]
    put_table(draft, rates, f"sched {kind}: its rate in each epoch")


def _is_near(draft: Draft, source: Source, theirs: Any, on_updates: bool) -> bool:
    """Says whether our curve may stand, and tells by how much it differs."""

    def rate_at(epochs: float) -> float:
        return theirs.rate(epochs if on_updates else math.floor(epochs + 1e-9))

    warmup = float(source.number("warmup_epochs").value)
    late, early = difference(draft, rate_at, theirs.epochs, warmup)
    if max(late, early) > 1e-9:
        if not on_updates:  # a table of the epochs has it
            return False
        why = "timm's formula is another where a cycle or the warmup ends"
        draft.tell(DIFFERS, source, "sched", f"{why}; {percent(late, early)}")
    return True


def _cosine(draft: Draft, source: Source, base: Taken, on_updates: bool) -> bool:
    cycles, multiple = source.whole("lr_cycle_limit"), source.number("lr_cycle_mul")
    fall, low = source.number("lr_cycle_decay"), source.number("min_lr")
    if source.number("lr_k_decay").value != 1:
        return False
    if cycles.value == 1:
        place = "learning_rate.cosine."
        draft.put("learning_rate.type", "cosine", "sched")
        draft.put(f"{place}initial_learning_rate", float(base.value), base.comment)
        draft.put(f"{place}decay_steps", f"{source.whole('epochs').value} epochs", "epochs")
        if low.value:
            draft.put(f"{place}min_learning_rate", float(low.value), low.comment)
        return True
    if (low.value and fall.value != 1) or source.whole("cooldown_epochs").value:
        return False
    place = "learning_rate.cosine_restarts."
    draft.put("learning_rate.type", "cosine_restarts", "sched, lr_cycle_limit")
    draft.put(f"{place}initial_learning_rate", float(base.value), base.comment)
    draft.put(f"{place}first_decay_steps", f"{source.whole('epochs').value} epochs", "epochs")
    draft.put(f"{place}t_mul", float(multiple.value), multiple.comment)
    draft.put(f"{place}m_mul", float(fall.value), fall.comment)
    if low.value:
        draft.put(f"{place}min_learning_rate", float(low.value), low.comment)
    return True


def _poly(draft: Draft, source: Source, base: Taken, on_updates: bool) -> bool:
    if source.number("lr_k_decay").value != 1 or source.whole("lr_cycle_limit").value != 1:
        return False
    place = "learning_rate.polynomial."
    draft.put("learning_rate.type", "polynomial", "sched")
    draft.put(f"{place}initial_learning_rate", float(base.value), base.comment)
    draft.put(f"{place}decay_steps", f"{source.whole('epochs').value} epochs", "epochs")
    draft.put(f"{place}end_learning_rate", float(source.number("min_lr").value), "min_lr")
    draft.put(f"{place}power", float(source.number("decay_rate").value), "decay_rate")
    return True


def _step(draft: Draft, source: Source, base: Taken, on_updates: bool) -> bool:
    place = "learning_rate.exponential."
    draft.put("learning_rate.type", "exponential", "sched")
    draft.put(f"{place}initial_learning_rate", float(base.value), base.comment)
    epochs = source.number("decay_epochs")
    draft.put(f"{place}decay_steps", f"{epochs.value:g} epochs", epochs.comment)
    draft.put(f"{place}decay_rate", float(source.number("decay_rate").value), "decay_rate")
    draft.put(f"{place}staircase", True, "sched step")
    source.whole("epochs")
    return True


def _multistep(draft: Draft, source: Source, base: Taken, on_updates: bool) -> bool:
    milestones = source.numbers("decay_milestones")
    rate = source.number("decay_rate")
    source.whole("epochs")
    draft.put("learning_rate.type", "stepwise", "sched")
    # timm drops at milestone - 1: of its unit, epochs or updates.
    epochs = [m if on_updates else m - 1 for m in milestones.value]
    if any(epoch <= 0 for epoch in epochs):
        return False
    comment = f"{milestones.comment}: timm changes one {'update' if on_updates else 'epoch'} before"
    put_boundaries(draft, epochs, comment, 2 if on_updates else 1)
    values = [float(base.value) * float(rate.value) ** n for n in range(len(epochs) + 1)]
    draft.put("learning_rate.stepwise.values", values, f"{base.comment}, {rate.comment}")
    return True


def _constant(draft: Draft, source: Source, base: Taken, on_updates: bool) -> bool:
    draft.put("learning_rate.type", "constant", "sched")
    draft.put("learning_rate.constant.learning_rate", float(base.value), base.comment)
    source.whole("epochs")
    return True


def _plateau(draft: Draft, source: Source, base: Taken) -> None:
    place = "learning_rate.hf_reduce_lr_on_plateau."
    metric = source.text("eval_metric")
    draft.put("learning_rate.type", "hf_reduce_lr_on_plateau", "sched")
    draft.put(f"{place}initial_learning_rate", float(base.value), base.comment)
    draft.put(f"{place}metric", metric)
    draft.put(f"{place}mode", "min" if "loss" in metric.value else "max", metric.comment)
    draft.put(f"{place}factor", float(source.number("decay_rate").value), "decay_rate")
    draft.put(f"{place}patience", source.whole("patience_epochs"))
    draft.put(f"{place}min_lr", float(source.number("min_lr").value), "min_lr")
    if source.number("warmup_epochs").value:
        why = "a rate that follows a metric has no warmup here"
        draft.tell(LOST, source, "warmup_epochs", why)


def _warmup(draft: Draft, source: Source, on_updates: bool) -> None:
    epochs = source.number("warmup_epochs")
    if not epochs.value:
        return
    low, prefix = source.number("warmup_lr"), source.flag("warmup_prefix")
    draft.put("warmup.type", "linear")
    draft.put("warmup.linear.warmup_steps", f"{epochs.value:g} epochs", epochs.comment)
    draft.put("warmup.linear.warmup_learning_rate", float(low.value), low.comment)
    draft.put("warmup.linear.mode", "delay" if prefix else "replace", "warmup_prefix")
    if not prefix and source.text("sched").value != "tanh":
        draft.put("warmup.linear.leads_to", "peak", "timm's leads to the full rate")
    if not on_updates:
        draft.put("warmup.linear.per", "epoch", "not sched_on_updates")


def _ema(draft: Draft, source: Source) -> None:
    decay = source.number("model_ema_decay")
    if not source.flag("model_ema"):
        return
    draft.put("ema.average_decay", decay)
    warms = source.flag("model_ema_warmup")
    draft.put("ema.dynamic_decay", "power" if warms else False, "ModelEmaV3")
    draft.put("ema.start_step", 1 if warms else 2, "after the first update it is the weights")
    draft.put("ema.trainable_weights_only", False, "buffers are averaged too")


def _layer_decay(draft: Draft, source: Source) -> None:
    rate, least = source.number("layer_decay"), source.number("layer_decay_min_scale")
    if rate.value is None:
        return
    draft.put("layer_decay.rate", rate)
    draft.put("layer_decay.depth", r"blocks[./_](\d+)", "the blocks of timm's ViT")
    draft.put("layer_decay.with_last_block", r"^norm[./]", "as its group_matcher")
    if least.value:
        draft.put("layer_decay.min_multiplier", least)
    why = "which layers there are is the model's matter; written is what ViT has"
    draft.tell(NOTE, source, "layer_decay", why, "change `depth` and `with_last_block` for others")
    if source.number("layer_decay_no_opt_scale").value:
        todo = "freeze them by `param_groups: [{match: ..., freeze: true}]`"
        draft.tell(LOST, source, "layer_decay_no_opt_scale", "layers are not frozen by it", todo)


def _not_here(draft: Draft, source: Source) -> None:
    noise = source.take("lr_noise").value
    for key in ("lr_noise_pct", "lr_noise_std"):
        source.take(key)
    if noise is not None:
        draft.tell(LOST, source, "lr_noise", "rates here have no noise")
    # What the chosen schedule does not read.
    for key in timm_keys.OF_SCHEDULES:
        if key in source.mapping and key not in source.asked:
            source.take(key)
            draft.no_matter.setdefault("not read by this schedule", []).append(key)
