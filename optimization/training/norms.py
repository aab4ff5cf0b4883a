"""Norms of gradients, updates and weights by group or by layer, of one training step."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from optimization.keras.gradients import global_norm, sum_duplicates
from optimization.keras.reported import innermost
from optimization.matching.group_table import GroupRow
from optimization.matching.rules import DEFAULT

KINDS = ("gradient_norm", "update_norm", "weight_norm", "update_ratio")


class Norms:
    """Measures a step, and holds what it measured last.

    Args:
        kind: `groups`, those of the optimizer, or `layers`.
        model: The model.
        optimizer: The optimizer, built.
    """

    def __init__(self, kind: str, model: keras.Model, optimizer: keras.optimizers.Optimizer):
        inner: Any = innermost(optimizer)
        frozen: set[int] = getattr(inner, "frozen_variables", set)()
        rows: list[GroupRow] = getattr(inner, "group_table", list)()
        groups = {row.path: row.group for row in rows}
        self._places: dict[str, list[int]] = {}
        for index, variable in enumerate(model.trainable_variables):
            if id(variable) in frozen:
                continue
            name = variable.path.rpartition("/")[0]
            if kind == "groups":
                name = groups[inner.path_of(variable)] if rows else DEFAULT
            self._places.setdefault(name, []).append(index)
        self._variables = model.trainable_variables
        self._last = tf.Variable(tf.zeros([len(KINDS), len(self._places)]), trainable=False)

    def measure(self, gradients: Sequence[Any], update: Callable[[], None]) -> None:
        """Calls `update`, which changes the weights, and measures what it does.

        Args:
            gradients: That of the whole update for each variable; None for one that has none.
            update: Makes it.
        """
        before = [tf.identity(tf.convert_to_tensor(v.value)) for v in self._variables]
        grads = [None if g is None else sum_duplicates(g) for g in gradients]
        update()
        moved = [
            tf.convert_to_tensor(v.value) - b for v, b in zip(self._variables, before, strict=True)
        ]
        parts = [self._norms(tensors) for tensors in (grads, moved, before)]
        self._last.assign(tf.stack([*parts, tf.math.divide_no_nan(parts[1], parts[2])]))

    def _norms(self, tensors: Sequence[Any]) -> tf.Tensor:
        found = []
        for places in self._places.values():
            present = [tensors[i] for i in places if tensors[i] is not None]
            norm = global_norm(present).value if present else 0.0
            found.append(tf.cast(norm, tf.float32))
        return tf.stack(found)

    def values(self) -> dict[str, float]:
        """Returns what was measured last, as `gradient_norm/NAME` and so on."""
        table = self._last.numpy().tolist()
        return {
            f"{kind}/{name}": value
            for kind, row in zip(KINDS, table, strict=True)
            for name, value in zip(self._places, row, strict=True)
        }
