"""What is trained: the configuration of each optimizer type with all that can be set with it."""

import dataclasses
from typing import Any

from optimization import OPTIMIZERS_CLS

TOGETHER = {"every_type": False, "every_schedule_free_type": True}
"""Trainings of which each layer has a type of its own, by whether these average by themselves."""

_AVERAGE = {"average_decay": 0.9}
_HEAD = {"match": "^(.*/)?head[./]", "learning_rate_multiplier": 0.5, "weight_decay": 0.01}
# What a type needs beside its defaults.
_SETTINGS: dict[str, dict[str, Any]] = {
    "adafactor": {"variant": "torch", "beta1": 0.9},  # with state of every kind
    "muon": {"exclude_layers": ["head"]},
}


def types(schedule_free: bool | None = None) -> list[str]:
    """Returns the optimizer types that are registered: all, or those that average by themselves."""
    found = OPTIMIZERS_CLS.entries()
    return sorted(n for n, e in found if schedule_free in (None, e.config_class.schedule_free))


@dataclasses.dataclass(frozen=True)
class Sections:
    """The configuration of a training, and the layers that its model has.

    Attributes:
        layers: The hidden layers; each but the first has an optimizer type of its own.
        optimizer: The section of the optimizer.
    """

    layers: list[str]
    optimizer: dict[str, Any]

    @property
    def averages(self) -> bool:
        """Whether there are averages beside the weights."""
        return "ema" in self.optimizer


def sections(kind: str, *, first: dict[str, Any] | None = None, **others: Any) -> Sections:
    """Returns the training of a type, or of those `TOGETHER`.

    Args:
        kind: The type, or a name of `TOGETHER`.
        first: More settings of the first type.
        **others: More sections: of the learning rate, the warmup.
    """
    kinds = types(TOGETHER[kind]) if kind in TOGETHER else [kind]
    own = [{"type": name, name: _SETTINGS.get(name, {})} for name in kinds]
    layers = kinds if len(kinds) > 1 else ["hidden"]
    groups = [
        {"match": f"^{layer}[./]", "optimizer": section}
        for layer, section in zip(layers[1:], own[1:], strict=True)
    ]
    optimizer: dict[str, Any] = {
        "optimizer": {"type": kinds[0], kinds[0]: {**own[0][kinds[0]], **(first or {})}},
        "param_groups": [_HEAD, *groups],
        **others,
    }
    if not OPTIMIZERS_CLS.config_class(kinds[0]).schedule_free:  # which averages by itself
        optimizer["ema"] = _AVERAGE
    return Sections(layers, optimizer)
