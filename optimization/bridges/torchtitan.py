"""torchtitan: the TOML files of its jobs. Formulas are those of its main branch in 2025.

The warmup counts from 1, and the decay ends at the step after the last, so that no update has a
rate of 0: `warmup_stable_decay` after a warmup that counts so is the same, at every update.
"""

from collections.abc import Mapping
from typing import Any

from optimization.bridges.draft import DIFFERS, LOST, NOTE, Draft, Source, Taken
from optimization.bridges.torch_classes import DEFAULTS as TORCH
from optimization.bridges.torch_classes import known_class, put_clip, put_optimizer
from optimization.configs.yaml_file import SourcedDict

_OPTIMIZER = {
    **{"name": "AdamW", "lr": 8e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8},
    **{"weight_decay": 0.1, "implementation": "fused", "early_step_in_backward": False},
}
_SCHEDULE = {"warmup_steps": 200, "decay_type": "linear", "min_lr_factor": 0.0}
_TRAINING = {"max_norm": 1.0, "steps": 10000}
_SECTIONS = """
    job profiling metrics model parallelism checkpoint activation_checkpoint float8 mx comm
    memory_estimation fault_tolerance experimental validation compile debug quantize data
"""
NO_MATTER = {
    "optimizer": {"torch's implementation": "implementation fused"},
    "training": {
        "batches and precision": """
            local_batch_size global_batch_size batch_size seq_len dataset dataset_path
            enable_cpu_offload dtype mixed_precision_param mixed_precision_reduce compile gc_freq
            gc_debug seed deterministic debug_moe_force_load_balance data_parallel_degree
            tensor_parallel_degree
        """
    },
}
_TYPES = {"linear": "linear", "cosine": "cosine", "sqrt": "1-sqrt"}


def reads(mapping: Mapping[str, Any]) -> bool:
    """Says whether a mapping looks like a job of torchtitan."""
    training = mapping.get("training")
    return "optimizer" in mapping and isinstance(training, Mapping) and "steps" in training


def convert(mapping: SourcedDict, file: str, exact: bool = False) -> Draft:
    """Returns our config of a job; the curve is always torchtitan's own."""
    draft = Draft()
    source = Source(mapping, file, library="torchtitan")
    training = source.section("training", defaults=_TRAINING)
    optimizer = source.section("optimizer", defaults=_OPTIMIZER)
    schedule = source.section("lr_scheduler", defaults=_SCHEDULE)
    _optimizer(draft, optimizer, training)
    _schedule(draft, schedule, training, optimizer.number("lr"))
    draft.sort_out(optimizer, NO_MATTER["optimizer"], _OPTIMIZER)
    draft.sort_out(schedule, {}, [*_SCHEDULE, "decay_ratio"])
    draft.sort_out(training, NO_MATTER["training"], _TRAINING)
    draft.sort_out(source, {"other sections": _SECTIONS})
    return draft


def _optimizer(draft: Draft, source: Source, training: Source) -> None:
    name = source.text("name").value
    clip = training.number("max_norm")
    keys = ("lr", "beta1", "beta2", "eps", "weight_decay")
    early = source.flag("early_step_in_backward")
    for key in keys:
        source.take(key)
    if name == "Muon":  # of torch, which is not built from these keys
        todo = "choose a `variant` of `muon` (docs/muon.md)"
        draft.tell(LOST, source, "name", "a job's TOML says nothing of its momentum or scale", todo)
    if name == "Muon" or not known_class(draft, name, source, "name"):
        draft.lose(source, keys[1:])
        draft.lose(training, ["max_norm"])
        return
    links = {key: (source, key) for key in keys}
    made = Source(SourcedDict(), source.file, defaults=TORCH[name], library="torch", links=links)
    kind = put_optimizer(draft, name, made)
    if early:
        clip = Taken(0.0, "early_step_in_backward: no clip")
        why = "each weight is updated as soon as it has its gradient, and nothing is clipped"
        draft.tell(NOTE, source, "early_step_in_backward", why)
    put_clip(draft, kind, clip)
    if training.has("global_batch_size"):
        why = "over the batch of all devices it says how many gradients are accumulated"
        todo = "write `gradient_accumulation_steps` where it is not 1"
        draft.tell(NOTE, training, "global_batch_size", why, todo)


def _schedule(draft: Draft, source: Source, training: Source, rate: Taken) -> None:
    total, ends = training.whole("steps"), "last"
    warmup, share = source.whole("warmup_steps"), source.number("decay_ratio")
    kind, low = source.text("decay_type"), source.number("min_lr_factor")
    if source.has("lr_min"):  # its name before
        low, ends = source.number("lr_min"), "next"
        why = "before `min_lr_factor` decays counted to their length + 1; the warmup is as it was"
        draft.tell(DIFFERS, source, "lr_min", why)
    if kind.value not in _TYPES:
        source.refuse("decay_type", f"expected one of {', '.join(_TYPES)}, got {kind.value!r}")
    steps = min(warmup.value, total.value)
    decay = total.value - steps
    said = f"{total.comment} {total.value} - warmup_steps"
    if share.value is not None:
        decay = min(round(total.value * share.value), decay)
        said = f"{share.comment} {share.value} of {total.value}"
    base = float(rate.value)
    if decay == 0:
        draft.put("learning_rate.type", "constant", "all of the training is warmup, or no decay")
        draft.put("learning_rate.constant.learning_rate", base, rate.comment)
    else:
        place = "learning_rate.warmup_stable_decay."
        draft.put("learning_rate.type", "warmup_stable_decay", "[lr_scheduler]")
        draft.put(f"{place}initial_learning_rate", base, rate.comment)
        draft.put(f"{place}stable_steps", total.value - steps - decay, "what is left")
        draft.put(f"{place}decay_steps", decay, said)
        draft.put(f"{place}decay_type", _TYPES[kind.value], kind.comment)
        draft.put(f"{place}min_lr_ratio", low)
    if steps:
        cut = "" if steps == warmup.value else f" {warmup.value}, at most `steps`"
        draft.put("warmup.type", "linear")
        draft.put("warmup.linear.warmup_steps", steps, f"{warmup.comment}{cut}")
        draft.put("warmup.linear.mode", "delay", "the decay starts after it")
        draft.put("warmup.linear.counts_from", 1, "step 0 is the first")
        draft.put("warmup.linear.ends_on", ends, "its last step has the rate" * (ends == "last"))
