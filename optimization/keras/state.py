"""An optimizer's variables under names that stay the same from one process to the next.

Keras' own paths don't: they hold the optimizer's automatic name ("adam_1"), the scope it was built
in, and names of variables made without one ("variable_7").
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import keras
import numpy as np

from optimization.keras.paths import saved_names

_LISTED = 20


def inner_variables_by_path(
    optimizer: keras.optimizers.Optimizer, paths: Sequence[str]
) -> dict[str, keras.Variable]:
    """Names an optimizer's variables after its attributes and the paths it was built with.

    A slot list such as `_momentums` gives `momentums/<path of the model's variable>`, a single
    variable its attribute's name, anything else the last part of its own path.
    """
    names: dict[int, str] = {}
    for attribute, value in vars(optimizer).items():
        label = attribute.lstrip("_")
        if isinstance(value, keras.Variable):
            names.setdefault(id(value), label)
        # Positions in Keras' lists of variables of every kind, and in TensorFlow's own
        # bookkeeping, mean nothing.
        elif attribute not in ("_variables", "_trainable_variables") and (
            not attribute.startswith("_self_")
            and isinstance(value, list | tuple)
            and len(value) == len(paths)
        ):
            for slot, path in zip(value, paths, strict=True):
                if isinstance(slot, keras.Variable):
                    names.setdefault(id(slot), f"{label}/{path}")
    return by_unique_name(
        (names.get(id(variable), variable.path.split("/")[-1]), variable)
        for variable in optimizer.variables
    )


def by_unique_name(named_variables: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Collects (name, variable) pairs; a name that repeats gets `#2`, `#3`, ..."""
    collected: dict[str, Any] = {}
    for name, variable in named_variables:
        unique, count = name, 1
        while unique in collected:
            count += 1
            unique = f"{name}#{count}"
        collected[unique] = variable
    return collected


def save(values: Mapping[str, Any], store: Any) -> None:
    """Writes values into a store of Keras' saving, under their names."""
    for path, value in values.items():
        # A store takes "/" for a level of its own.
        store[quote(path, safe="")] = value


def read(store: Any) -> dict[str, np.ndarray]:
    """Returns what a store of Keras' saving holds, by the names that `save` was given."""
    # A store is no mapping, so its keys are asked for.
    return {unquote(key): np.array(store[key]) for key in list(store.keys())}


def load(
    variables: Mapping[str, keras.Variable],
    values: Mapping[str, Any],
    paths: Sequence[str],
    later: str | tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Gives variables their saved values; all match, or an error lists what does not.

    Values whose name begins with `later` may have no variable yet: these are returned. `paths` are
    those of the model's variables, for `saved_names`.
    """
    names = saved_names(variables, values, paths)
    missing = [name for name in variables if names[name] not in values]
    others = [name for name in values if name not in set(names.values())]
    waiting = [name for name in others if later is not None and name.startswith(later)]
    left_over = [name for name in others if name not in waiting]
    misshapen = [
        f"{name}: {np.shape(values[names[name]])} saved, {tuple(variable.shape)} expected"
        for name, variable in variables.items()
        if names[name] in values and np.shape(values[names[name]]) != tuple(variable.shape)
    ]
    if missing or left_over or misshapen:
        parts = {"Missing": missing, "Left over": left_over, "Other shapes": misshapen}
        found = "".join(f"{name}: {_listed(names)}. " for name, names in parts.items() if names)
        raise ValueError(
            "The saved optimizer state does not belong to this optimizer, or to this model. "
            f"{found}To go on with it, make the optimizer and the "
            "model as they were when it was saved. To go on without it, take the model's weights "
            "only: call `load_weights` before `compile`, or with `skip_mismatch=True`; "
            "`load_model` takes `compile=False`; `from_config` makes a fresh optimizer."
        )
    for name, variable in variables.items():
        variable.assign(values[names[name]])
    return {name: values[name] for name in waiting}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{list(names[:_LISTED])}{more}"
