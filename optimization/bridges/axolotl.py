"""axolotl: its YAML files, which are transformers' arguments under names of its own.

Defaults and schedules are those of axolotl 0.10.
"""

from collections.abc import Mapping
from typing import Any

from optimization.bridges import hf, hf_keys
from optimization.bridges.axolotl_keys import NO_MATTER
from optimization.bridges.draft import DIFFERS, LOST, NOTE, Draft, Source, Taken
from optimization.configs.yaml_file import SourcedDict

NAMES = {
    "optim": "optimizer",
    "lr_scheduler_type": "lr_scheduler",
    "num_train_epochs": "num_epochs",
}
_DEFAULTS = {
    **hf.DEFAULTS,
    **{"lr_scheduler_type": "cosine", "optim": "adamw_torch_fused", "num_train_epochs": 1.0},
}
_ALIASES = {
    **{"ao_adamw_8bit": "adamw_torch_8bit", "ao_adamw_4bit": "adamw_torch_4bit"},  # names before
    **{"ao_adamw_fp8": "adamw_torch_8bit", "optimi_adamw": "adamw_torch"},
}
_OWN = {
    "adopt_adamw": hf.adopt,
    "muon": "it is axolotl's own, beside an AdamW; `muon` with a `variant` (docs/muon.md) is near",
    "dion": "it orthogonalizes at a low rank, which no type here does",
    "came_pytorch": "its confidence in a factored second moment no type here has",
}
"""Optimizers that axolotl adds to transformers', and what puts them, or why nothing does."""
_USUAL_SHARE, _USUAL_MOST = 0.03, 100


def reads(mapping: Mapping[str, Any]) -> bool:
    """Says whether a mapping looks like a file of axolotl."""
    own = {"micro_batch_size", "base_model", "datasets", "sequence_len", "num_epochs", "adapter"}
    return len(own & set(mapping)) >= 2 and bool({"lr_scheduler", "optimizer"} & set(mapping))


def convert(mapping: SourcedDict, file: str, exact: bool = False) -> Draft:
    """Returns our config of a file of axolotl; the curve is axolotl's own."""
    draft = Draft()
    name = mapping.get("optimizer")
    if isinstance(name, str) and name in _ALIASES:
        mapping["optimizer"] = _ALIASES[name]
    source = Source(mapping, file, defaults=_DEFAULTS, library="axolotl", names=NAMES)
    hf.build(draft, source, schedule=False, own=_OWN)
    _schedule(draft, source)
    for key in ("lr_groups", "embedding_lr", "embedding_lr_scale", "loraplus_lr_ratio"):
        if source.has(key):
            todo = "write `param_groups: [{match: ..., learning_rate_multiplier: ...}]`"
            draft.tell(LOST, source, key, "which weights they are the model says", todo)
        source.take(key)
    for key in ("adam_beta3", "adam_epsilon2", "lr_div_factor", "loraplus_lr_embedding"):
        if source.has(key):
            draft.tell(LOST, source, key, "no type here has it")
        source.take(key)
    if source.has("relora_steps") or source.has("relora"):
        draft.tell(LOST, source, "relora_steps", "ReLoRA restarts the schedule, none here does")
    draft.sort_out(source, {**hf_keys.NO_MATTER, **NO_MATTER}, _DEFAULTS)
    return draft


def _schedule(draft: Draft, source: Source) -> None:
    name = source.text("lr_scheduler_type").value
    total = hf.training_steps(source)
    warmup = _warmup_steps(draft, source, total.value)
    low, level = source.number("cosine_min_lr_ratio"), source.number("cosine_constant_lr_ratio")
    squared = source.flag("lr_quadratic_warmup")
    if name in ("rex", "one_cycle", "log_sweep"):
        why = f"`{name}` has a formula that no type here has"
        draft.tell(LOST, source, "lr_scheduler_type", why, "choose a `learning_rate.type`")
        source.take("learning_rate"), source.take("lr_scheduler_kwargs")
        return
    if name == "cosine" and squared:
        _squared(draft, source, warmup, total)
        if low.value:
            draft.tell(NOTE, source, "cosine_min_lr_ratio", "axolotl leaves it out beside it")
    elif name == "cosine" and low.value:
        _with_least(draft, source, warmup, total, low, level)
    else:
        for key, value in (("cosine_min_lr_ratio", low), ("lr_quadratic_warmup", squared or None)):
            if value and value != Taken(None, getattr(value, "comment", "")) and name != "cosine":
                draft.tell(NOTE, source, key, f"axolotl reads it for cosine, not for `{name}`")
        hf.put_schedule(draft, source, warmup)


def _warmup_steps(draft: Draft, source: Source, total: Any) -> Taken:
    """Returns the length of the warmup: axolotl rounds shares down, and makes 2 steps of 1."""
    steps, ratio = source.number("warmup_steps"), source.number("warmup_ratio")
    key = "warmup_steps" if steps.value else "warmup_ratio"
    if not steps.value and not source.has("warmup_ratio"):
        if source.has("warmup_steps"):
            return Taken(0, steps.comment)
        if not isinstance(total, int):
            why = f"by default it is 3 % of the training, at most {_USUAL_MOST} steps; here 3 %"
            draft.tell(DIFFERS, source, "warmup_steps", why, "write a number of steps")
            return Taken("3%", "axolotl's default, but for its most of 100 steps")
        steps = Taken(min(int(_USUAL_SHARE * total), _USUAL_MOST), "axolotl's default")
    elif not steps.value:
        if not isinstance(total, int):
            shown = hf.warmup_steps(source, total)
            why = "axolotl rounds it down and here it is rounded up: one step, at most"
            draft.tell(DIFFERS, source, "warmup_ratio", why)
            return shown
        steps = Taken(int(ratio.value * total), f"{ratio.comment} {ratio.value} of {total}")
    if steps.value == 1:
        return Taken(2, f"{source.path(key)}: axolotl makes 2 of 1")
    return steps._replace(value=int(steps.value))


def _with_least(
    draft: Draft, source: Source, warmup: Taken, total: Taken, low: Taken, level: Taken
) -> None:
    """Puts a cosine to a least rate, which may come before the end."""
    place = "learning_rate.hf_cosine_with_min_lr."
    steps, comment = total.value, total.comment
    if level.value and isinstance(steps, int):
        steps = int(steps * level.value)
        comment = f"{level.comment} {level.value} of {total.value}"
    elif level.value:
        epochs = float(steps.split()[0]) * level.value
        steps, comment = f"{epochs:g} epochs", f"{level.comment} {level.value} of {total.value}"
    draft.put("learning_rate.type", "cosine" if level.value else "hf_cosine_with_min_lr", "cosine")
    if level.value:
        _level(draft, source, warmup, Taken(steps, comment), low)
        return
    draft.put(f"{place}initial_learning_rate", source.number("learning_rate"))
    if warmup.value:
        draft.put(f"{place}num_warmup_steps", warmup)
    draft.put(f"{place}num_training_steps", Taken(steps, comment))
    draft.put(f"{place}min_lr_rate", low)
    source.take("lr_scheduler_kwargs")


def _level(draft: Draft, source: Source, warmup: Taken, end: Taken, low: Taken) -> None:
    """Puts a cosine that is over before the training, and then level: `cosine` is."""
    length: Any = "remaining"
    if isinstance(end.value, int) and isinstance(warmup.value, int):
        length = max(1, end.value - warmup.value)
    else:
        why = "the decay's length is that of a share without the warmup, which needs max_steps"
        draft.tell(LOST, source, "cosine_constant_lr_ratio", why, "set `decay_steps` in steps")
    place = "learning_rate.cosine."
    draft.put(f"{place}initial_learning_rate", source.number("learning_rate"))
    draft.put(f"{place}decay_steps", length, f"{end.comment}, without the warmup")
    draft.put(f"{place}alpha", low)
    _line(draft, warmup, "linear")


def _squared(draft: Draft, source: Source, warmup: Taken, total: Taken) -> None:
    place = "learning_rate.cosine."
    draft.put("learning_rate.type", "cosine", source.path("lr_scheduler_type"))
    draft.put(f"{place}initial_learning_rate", source.number("learning_rate"))
    if isinstance(total.value, int) and isinstance(warmup.value, int):
        draft.put(f"{place}decay_steps", max(1, total.value - warmup.value), total.comment)
    _line(draft, warmup, "polynomial")
    if warmup.value:
        draft.put("warmup.polynomial.power", 2.0, "lr_quadratic_warmup")
        why = "the rate of step 0 is that of step 1 here, and 0 there"
        draft.tell(DIFFERS, source, "lr_quadratic_warmup", why)


def _line(draft: Draft, warmup: Taken, kind: str) -> None:
    if warmup.value:
        draft.put("warmup.type", kind)
        draft.put(f"warmup.{kind}.warmup_steps", warmup)
        draft.put(f"warmup.{kind}.mode", "delay", "the decay starts after it")
