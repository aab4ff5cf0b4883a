"""How `PipelineOptimizer` saves its variables: by path."""

import warnings
from collections.abc import Collection, Sequence, Set
from typing import Any

import keras

from optimization.keras import state


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
        state.save({**(self._loaded or {}), **values}, store)

    def load_own_variables(self, store: Any) -> None:
        # An optimizer that is not built takes what it has variables for, and the rest when it is
        # built. Where the file holds no state, or that of an optimizer that was not built, nothing
        # is read, with a warning if that may not be meant, as Keras' own optimizers do.
        values = state.read(store)
        variables = self.variables_by_path()
        early = self._early_names or set(variables)
        saved_before_build = set(values) == early and not int(values["iteration"])
        if not self.built and early <= set(values):
            state.load(variables, {name: values.pop(name) for name in variables}, ())
            self._loaded = None if saved_before_build else values
        elif values and (not saved_before_build or early == set(variables)):
            self._load(values)
        elif values and not int(keras.ops.convert_to_numpy(self.iterations)):
            state.load({name: variables[name] for name in values}, values, ())
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
        waiting = state.load(variables, values, self.variable_paths, later)
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
