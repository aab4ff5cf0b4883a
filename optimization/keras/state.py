"""An optimizer's variables, saved under names that stay the same from one process to the next.

Keras' own paths don't: they hold the optimizer's automatic name ("adam_1"), the scope it was built
in, and names of variables made without one ("variable_7").
"""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
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


class SavedByPath(keras.optimizers.Optimizer):
    """Mixin for an optimizer of stages: saves and loads all variables under their names."""

    _early_names: Set[str] = frozenset()  # Of what there is before `build`
    _loaded: dict[str, Any] | None = None

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns all variables under unique names that are the same in every process.

        For example `iteration`, `optimizer/momentums/encoder/dense/kernel`,
        `average/encoder/dense/kernel`: checkpoints by these names don't depend on any order.
        `tf.train.Checkpoint(optimizer=...)` uses them too; build before restoring one.
        """
        named = {"iteration": self.iterations}
        for stage in self.stages:
            named.update(stage.variables_by_path())
        return named

    def set_weights(self, weights: Sequence[Any]) -> None:
        if len(weights) != len(self.variables):
            raise ValueError(
                f"Argument `weights` must hold {len(self.variables)} arrays, received: "
                f"{len(weights)}"
            )
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store: Any) -> None:
        values = {path: variable.numpy() for path, variable in self.variables_by_path().items()}
        for stage in self.stages:
            values.update(stage.kept())
        save({**(self._loaded or {}), **values}, store)

    def load_own_variables(self, store: Any) -> None:
        # An optimizer that is not built takes what it has variables for, and the rest when it is
        # built. Where the file holds no state, or that of an optimizer that was not built, nothing
        # is read, with a warning if that may not be meant, as Keras' own optimizers do.
        values = read(store)
        variables = self.variables_by_path()
        early = self._early_names or set(variables)
        saved_before_build = set(values) == early and not int(values["iteration"])
        if not self.built and early <= set(values):
            load(variables, {name: values.pop(name) for name in variables}, ())
            self._loaded = None if saved_before_build else values
        elif values and (not saved_before_build or early == set(variables)):
            self._load(values)
        elif values and not int(keras.ops.convert_to_numpy(self.iterations)):
            load({name: variables[name] for name in values}, values, ())
        else:
            warnings.warn(
                f"The file holds no state of the optimizer {self.name!r}, or that of one that was "
                "not built: nothing was loaded into it.",
                stacklevel=2,
            )

    def _load_what_waited(self) -> None:
        values, self._loaded = self._loaded, None
        if values is not None:
            self._load(values, self._early_names)

    def _load(self, values: dict[str, Any], except_for: Collection[str] = ()) -> None:
        named = self.variables_by_path().items()
        variables = {name: variable for name, variable in named if name not in except_for}
        kept = [_starting(values, stage.kept_under) for stage in self.stages]
        values = {n: value for n, value in values.items() if not any(n in each for each in kept)}
        later = tuple(stage.loads_later for stage in self.stages if stage.loads_later)
        waiting = load(variables, values, self.variable_paths, later)
        self.copies_are_filled()
        for stage, own in zip(self.stages, kept, strict=True):
            stage.keep(own)
            waits = _starting(waiting, stage.loads_later)
            if waits:
                stage.load_later(waits)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        # `tf.train.Checkpoint(optimizer=...)` saves by these names too, not by position.
        return dict(self.variables_by_path())


def _starting(values: dict[str, Any], start: str | None) -> dict[str, Any]:
    return {name: v for name, v in values.items() if start is not None and name.startswith(start)}
