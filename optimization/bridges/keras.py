"""Keras 3: what `keras.optimizers.serialize` returns, and the compile config of a `.keras` file."""

import math
import struct
from collections.abc import Mapping
from typing import Any

from optimization.bridges.draft import LOST, NOTE, UNKNOWN, Draft, Source
from optimization.configs.errors import did_you_mean
from optimization.configs.yaml_file import SourcedDict
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.schedules.registry import LR_CLS

OPTIMIZERS = {
    **{"Adam": "adam", "AdamW": "adamw", "SGD": "sgd", "RMSprop": "rmsprop", "Lion": "lion"},
    **{"Adagrad": "adagrad", "Adadelta": "adadelta", "Adamax": "adamax", "Nadam": "nadam"},
    **{"Ftrl": "ftrl", "Lamb": "lamb", "Muon": "muon", "Adafactor": "adafactor_keras"},
    "ScheduleFreeAdamW": "schedule_free_adamw",
}
"""Keras' classes, and our types of the same formula."""
SCHEDULES = {
    "ExponentialDecay": "exponential",
    "PiecewiseConstantDecay": "stepwise",
    "PolynomialDecay": "polynomial",
    "InverseTimeDecay": "inverse_time",
    "CosineDecay": "cosine",
    "CosineDecayRestarts": "cosine_restarts",
}
NO_MATTER = {
    "compile": """
        loss loss_weights metrics weighted_metrics run_eagerly steps_per_execution jit_compile
        auto_scale_loss
    """,
    "serialization": "module class_name registered_name build_config name",
    "the rest of a model": "config compile_config",
}
_RENAMED = {("adamw", "weight_decay"): "weight_decay_rate"}


def reads(mapping: Mapping[str, Any]) -> bool:
    """Says whether a mapping looks like an optimizer or a model that Keras has serialized."""
    inner = mapping.get("compile_config", mapping)
    inner = inner.get("optimizer", inner) if isinstance(inner, Mapping) else {}
    return isinstance(inner, Mapping) and {"class_name", "config"} <= set(inner)


def convert(mapping: SourcedDict, file: str, exact: bool = False) -> Draft:
    """Returns our config of a serialized optimizer; formulas are Keras' own."""
    draft = Draft()
    source = Source(mapping, file, library="Keras")
    levels = [source]
    for key in ("compile_config", "optimizer"):
        if source.has(key):
            source = source.section(key)
            levels.append(source)
    if source.take("class_name").value == "LossScaleOptimizer":
        source = _unwrapped(draft, source, levels)
    _optimizer(draft, source)
    for level in levels:
        draft.sort_out(level, NO_MATTER)
    return draft


def _unwrapped(draft: Draft, source: Source, levels: list[Source]) -> Source:
    config = source.section("config")
    inner = config.section("inner_optimizer")
    levels += [config, inner]
    why = "the loss is scaled by the trainer here"
    todo = "write `runtime: {mixed_precision_dtype: float16}`, or `on_nonfinite: skip` elsewhere"
    draft.tell(LOST, config, "initial_scale", why, todo)
    for key in ("dynamic_growth_steps",):
        if config.has(key):
            draft.tell(LOST, config, key, why)
    return inner


def _optimizer(draft: Draft, source: Source) -> None:
    name, config = source.text("class_name").value, source.section("config")
    kind = OPTIMIZERS.get(name or "")
    _rate(draft, config)
    if kind is None:
        why = f"there is no such optimizer here{did_you_mean(name, OPTIMIZERS)}"
        todo = "choose an `optimizer.type`, or register the class by `register_optimizer`"
        draft.tell(LOST, source, "class_name", why, todo)
        return
    draft.put("optimizer.type", kind, source.path("class_name"))
    place, fields = f"optimizer.{kind}.", OPTIMIZERS_CLS.config_class(kind).field_names()
    if kind == "adamw":
        draft.put(f"{place}gradient_clip_norm", 0.0, "Keras has none")
    for key in config.unread():
        value = config.take(key).value
        ours = _RENAMED.get((kind, key), key)
        if key == "name" or value is None or value == []:
            continue
        if ours in fields:
            draft.put(place + ours, shortest(value), config.path(key))
        else:
            draft.tell(
                UNKNOWN, config, key, f"`{kind}` has no such field{did_you_mean(key, fields)}"
            )
    section = draft.values["optimizer"].get(kind, {})
    if not section.get("use_ema"):  # without it Keras does not read them
        for key in ("use_ema", "ema_momentum", "ema_overwrite_frequency"):
            section.pop(key, None)
            draft.comments.pop(place + key, None)
    if section.get("weight_decay_rate") or section.get("weight_decay"):
        why = "Keras does not save what `exclude_from_weight_decay` was called with"
        draft.tell(NOTE, config, "weight_decay", why, "write the names of what does not decay")


def _rate(draft: Draft, config: Source) -> None:
    if not isinstance(config.take("learning_rate").value, Mapping):
        rate = config.number("learning_rate")
        draft.put("learning_rate.type", "constant")
        draft.put("learning_rate.constant.learning_rate", shortest(rate.value), rate.comment)
        return
    serialized = config.section("learning_rate")
    name, source = serialized.text("class_name").value, serialized.section("config")
    kind = SCHEDULES.get(name or "")
    if kind is None:
        why = f"there is no such schedule here{did_you_mean(name, SCHEDULES)}"
        todo = "choose a `learning_rate.type`, or register it by `register_learning_rate`"
        draft.tell(LOST, serialized, "class_name", why, todo)
        return
    fields = LR_CLS.config_class(kind).field_names()
    draft.put("learning_rate.type", kind, serialized.path("class_name"))
    place = f"learning_rate.{kind}."
    if kind == "cosine":
        _warmup(draft, source)
    for key in source.unread():
        value = source.take(key).value
        if key == "name" or value is None:
            continue
        if key not in fields:
            draft.tell(UNKNOWN, source, key, f"`{kind}` has no such field")
            continue
        if key in ("decay_steps", "first_decay_steps"):
            value = source.positive(key).value
        elif key == "boundaries":
            value = source.numbers(key).value
            if any(boundary != int(boundary) for boundary in value):
                draft.tell(LOST, source, key, "a boundary is a whole number of steps here")
            value = [math.floor(boundary) for boundary in value]
        draft.put(place + key, shortest(value), source.path(key))


def _warmup(draft: Draft, source: Source) -> None:
    """Puts the warmup that is a part of Keras' CosineDecay: a line, then the decay begins."""
    target, steps = source.number("warmup_target"), source.number("warmup_steps")
    if target.value is None:
        return
    start = source.number("initial_learning_rate")
    draft.put("learning_rate.cosine.initial_learning_rate", shortest(target.value), target.comment)
    if steps.value:
        draft.put("warmup.type", "linear")
        draft.put("warmup.linear.warmup_steps", int(steps.value), steps.comment)
        draft.put("warmup.linear.warmup_learning_rate", shortest(start.value), start.comment)
        draft.put("warmup.linear.mode", "delay", "Keras' decay starts after it")


def shortest(value: Any) -> Any:
    """Returns the shortest decimal of the same float32, which Keras keeps rates as.

    >>> shortest(0.0010000000474974513)
    0.001
    """
    if isinstance(value, list):
        return [shortest(item) for item in value]
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    try:
        packed = struct.pack("f", value)
        if struct.unpack("f", packed)[0] != value:
            return value  # no float32: it is as it was written
    except OverflowError:
        return value
    digits = (float(f"{value:.{n}g}") for n in range(1, 10))
    return next((short for short in digits if struct.pack("f", short) == packed), value)
