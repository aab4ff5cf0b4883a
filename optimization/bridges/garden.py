"""TensorFlow Model Garden: experiment files, which are read here as they are.

A conversion leaves out what only Garden's trainer has and what is not selected, and writes patterns
that the paths of Keras 3 can match.
"""

import re
from collections.abc import Mapping
from typing import Any

from optimization.bridges.draft import DIFFERS, LOST, NOTE, UNKNOWN, Draft, Source
from optimization.configs.errors import did_you_mean
from optimization.configs.experiment_config import GARDEN_KEYS, RuntimeConfig, TrainerConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.optimizer_config import EMAConfig
from optimization.configs.yaml_file import SourcedDict
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.schedules.registry import LR_CLS, WARMUP_CLS

_ONEOFS: dict[str, Any] = {
    "optimizer": OPTIMIZERS_CLS,
    "learning_rate": LR_CLS,
    "warmup": WARMUP_CLS,
}
_NAMES = {  # parts of names that Keras 3 spells in another way
    r"LayerNorm(?:alization)?|layernorm(?:alization)?": "layer_?norm",
    r"BatchNorm(?:alization)?|batchnorm(?:alization)?": "batch_?norm",
}


def reads(mapping: Mapping[str, Any]) -> bool:
    """Says whether a mapping looks like an experiment file of Model Garden."""
    trainer = mapping.get("trainer")
    if isinstance(trainer, Mapping):
        return "optimizer_config" in trainer
    optimizer = mapping.get("optimizer")
    return isinstance(optimizer, Mapping) and "type" in optimizer


def convert(mapping: SourcedDict, file: str, exact: bool = False) -> Draft:
    """Returns the file in our words."""
    draft = Draft()
    source = Source(mapping, file, library="Model Garden")
    if not isinstance(mapping.get("trainer"), Mapping):
        _optimization(draft, source, "")
        return draft
    trainer, runtime = source.section("trainer"), source.section("runtime")
    _optimization(draft, trainer.section("optimizer_config"), "trainer.optimizer_config.")
    _others(draft, trainer, "trainer.", TrainerConfig)
    _others(draft, runtime, "runtime.", RuntimeConfig)
    if source.has("task"):
        draft.values["task"] = _plain(source.take("task").value)
        why = "it is copied: a task is registered in Python, with a config of its own"
        draft.findings.append(_note(source, "task", why))
    draft.sort_out(source, {})
    return draft


def _note(source: Source, key: str, why: str):
    from optimization.bridges.draft import Finding

    return Finding(NOTE, source.path(key), None, why, "", source.origin(key))


def _optimization(draft: Draft, source: Source, place: str) -> None:
    for name, registry in _ONEOFS.items():
        if source.has(name):
            _oneof(draft, source.section(name), f"{place}{name}.", registry)
    if source.has("ema"):
        section = source.section("ema")
        _copy(draft, section, f"{place}ema.", set(EMAConfig.field_names()))
        if f"{place}ema" and not section.has("average_decay"):
            draft.put(f"{place}ema.average_decay", 0.99, "Model Garden's default")
        why = "the average starts from the weights here, and from 0 in Model Garden"
        draft.tell(DIFFERS, source, "ema", why)
        draft.findings[-1] = draft.findings[-1]._replace(value=None)
    for name in OptimizationConfig.field_names():
        if name not in source.asked and source.has(name):
            draft.put(place + name, _plain(source.take(name).value), source.path(name))
    draft.sort_out(source, {}, OptimizationConfig.field_names())


def _oneof(draft: Draft, source: Source, place: str, registry: Any) -> None:
    kind = source.text("type").value
    if kind is None:
        for key in source.unread():
            if source.has(key):
                draft.tell(NOTE, source, key, "no type selects it: it is left out")
            source.take(key)
        return
    if kind not in registry:
        why = registry.unavailable.get(kind) if hasattr(registry, "unavailable") else None
        why = why or f"there is no such type{did_you_mean(kind, registry)}"
        draft.tell(LOST, source, "type", why)
        source.take(kind)
    else:
        draft.put(f"{place}type", kind, source.path("type"))
        if source.has(kind):
            fields = set(registry.config_class(kind).field_names())
            _copy(draft, source.section(kind), f"{place}{kind}.", fields)
    for key in source.unread():
        if source.has(key):
            draft.tell(NOTE, source, key, f"`type: {kind}` does not select it: it is left out")
            draft.findings[-1] = draft.findings[-1]._replace(value=None)
        source.take(key)


def _copy(draft: Draft, source: Source, place: str, fields: set[str]) -> None:
    for key in source.unread():
        value = source.take(key).value
        if value is None:
            continue
        if key not in fields:
            draft.tell(UNKNOWN, source, key, did_you_mean(key, fields).removeprefix("; "))
            continue
        if key.startswith(("exclude_from", "include_in")) and isinstance(value, list):
            value = _patterns(draft, source, key, value)
        draft.put(place + key, _plain(value), source.path(key))


def _patterns(draft: Draft, source: Source, key: str, patterns: list[Any]) -> list[Any]:
    if not all(isinstance(pattern, str) for pattern in patterns):
        source.refuse(key, "expected a list of expressions")
    written = [_for_keras_3(pattern) for pattern in patterns]
    if written != patterns:
        changed = [f"{a!r} -> {b!r}" for a, b in zip(patterns, written, strict=True) if a != b]
        draft.tell(NOTE, source, key, f"for the paths of Keras 3: {', '.join(changed)}")
        draft.findings[-1] = draft.findings[-1]._replace(value=None)
    return list(dict.fromkeys(written))


def _for_keras_3(pattern: str) -> str:
    """Returns a pattern that finds in a path of Keras 3 what it found in a name of Keras 2.

    >>> _for_keras_3("LayerNorm"), _for_keras_3("kernel:0$")
    ('layer_?norm', 'kernel$')
    """
    pattern = re.sub(r":0(?=\$?$)", "", pattern)
    for old, new in _NAMES.items():
        pattern = re.sub(old, new, pattern)
    return pattern


def _others(draft: Draft, source: Source, place: str, config_class: Any) -> None:
    fields = set(config_class.field_names())
    for key in source.unread():
        value = source.take(key).value
        if key in GARDEN_KEYS:
            draft.no_matter.setdefault("of Model Garden's own trainer", []).append(source.path(key))
        elif value is None:
            continue
        elif key not in fields:
            draft.tell(UNKNOWN, source, key, did_you_mean(key, fields).removeprefix("; "))
        elif place == "runtime." and key == "distribution_strategy" and value in _STRATEGIES:
            why = f"the trainer here has no {value!r}"
            draft.tell(LOST, source, key, why, "choose `mirrored` or `one_device`")
        else:
            draft.put(place + key, _plain(value), source.path(key))


_STRATEGIES = ("tpu", "parameter_server", "off", False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
