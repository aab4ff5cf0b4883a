"""An optimizer's variables under names that stay the same from one process to the next.

Keras' own paths don't: they hold the optimizer's automatic name ("adam_1"), the scope it was built
in, and names of variables made without one ("variable_7").
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import keras
import numpy as np

# Keras' lists of variables of every kind: positions in them mean nothing.
_NOT_SLOTS = ("_variables", "_trainable_variables")


def inner_variables_by_path(
    optimizer: keras.optimizers.Optimizer, paths: Sequence[str]
) -> dict[str, keras.Variable]:
    """Names an optimizer's variables after its attributes and the model's paths.

    Args:
        optimizer: A Keras optimizer.
        paths: The paths of the variables it was built with, in order.

    Returns:
        A slot list such as `_momentums` gives `momentums/<path of the model's variable>`, a single
        variable its attribute's name, anything else the last part of its own path. Where names
        meet, `#2`, `#3`, ... are appended in order.
    """
    names: dict[int, str] = {}
    lists = lists_by_variable(optimizer, len(paths))
    for attribute, value in vars(optimizer).items():
        label = attribute.lstrip("_")
        if isinstance(value, keras.Variable):
            names.setdefault(id(value), label)
        for slot, path in zip(lists.get(attribute, ()), paths, strict=attribute in lists):
            if isinstance(slot, keras.Variable):
                names.setdefault(id(slot), f"{label}/{path}")
    return by_unique_name(
        (names.get(id(variable), variable.path.split("/")[-1]), variable)
        for variable in optimizer.variables
    )


def lists_by_variable(
    optimizer: keras.optimizers.Optimizer, count: int
) -> dict[str, Sequence[Any]]:
    """Returns what an optimizer keeps for each of its `count` variables, by attribute.

    Slots, such as `_momentums`, and what else is known of each variable.
    """
    return {
        attribute: value
        for attribute, value in vars(optimizer).items()
        if attribute not in _NOT_SLOTS
        and not attribute.startswith("_self_")  # TensorFlow's own bookkeeping
        and isinstance(value, list | tuple)
        and len(value) == count
    }


def by_unique_name(named_variables: Any) -> dict[str, keras.Variable]:
    """Collects (name, variable) pairs; a name that repeats gets `#2`, `#3`, ..."""
    collected: dict[str, keras.Variable] = {}
    for name, variable in named_variables:
        unique, count = name, 1
        while unique in collected:
            count += 1
            unique = f"{name}#{count}"
        collected[unique] = variable
    return collected


def save(variables: Mapping[str, keras.Variable], store: Any) -> None:
    """Writes variables into a store of Keras' saving, under their names."""
    for path, variable in variables.items():
        # A store takes "/" for a level of its own.
        store[quote(path, safe="")] = variable.numpy()


def load(variables: Mapping[str, keras.Variable], store: Any, later: str | None = None) -> dict:
    """Reads variables from a store of Keras' saving by name; all match or nothing is changed.

    Args:
        variables: The variables, by path.
        store: Where `save` wrote.
        later: Values whose name begins so may have no variable yet.

    Returns:
        Such values, by name.

    Raises:
        ValueError: Listing what the store lacks, what it has too much, and what has another shape.
    """
    stored = {unquote(key): key for key in store.keys()}  # noqa: SIM118 (a store is no mapping)
    missing = [path for path in variables if path not in stored]
    others = [path for path in stored if path not in variables]
    waiting = [path for path in others if later is not None and path.startswith(later)]
    left_over = [path for path in others if path not in waiting]
    values = {path: np.asarray(store[key]) for path, key in stored.items() if path in variables}
    misshapen = [
        f"{path}: {value.shape} stored, {tuple(variables[path].shape)} expected"
        for path, value in values.items()
        if value.shape != tuple(variables[path].shape)
    ]
    if missing or left_over or misshapen:
        raise ValueError(
            "The saved optimizer state does not belong to this optimizer. "
            f"Missing: {missing}. Left over: {left_over}. Other shapes: {misshapen}."
        )
    for path, value in values.items():
        variables[path].assign(value)
    return {path: np.asarray(store[stored[path]]) for path in waiting}
