"""How `PipelineOptimizer` saves its variables: by path."""

from collections.abc import Sequence
from typing import Any

import keras

from optimization.optimizers import state


class SavedByPath:
    """Mixin that names all variables, and saves and loads them under these names."""

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns all variables under unique names that are the same in every process.

        For example `iteration`, `optimizer/momentums/encoder/dense/kernel`,
        `average/encoder/dense/kernel`: checkpoints by these names don't depend on any order.
        `tf.train.Checkpoint(optimizer=...)` uses them too; build before restoring one.
        """
        named = {"iteration": self._iterations}
        if self._average is not None and self.built:
            named.update(self._average.variables_by_path())
        if self._accumulation is not None and self.built:
            named.update(self._accumulation.variables_by_path())
        named.update(self._finite_check.variables_by_path())
        named.update(self._clip.variables_by_path())
        named.update(self._masters.variables_by_path())
        named.update(self._members.variables_by_path(self._paths))
        return named

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all variables, in the order of `variables`."""
        if len(weights) != len(self.variables):
            raise ValueError(
                f"Argument `weights` must hold {len(self.variables)} arrays, received: "
                f"{len(weights)}"
            )
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store: Any) -> None:
        """Writes all variables by path, for Keras' saving."""
        state.save(self.variables_by_path(), store)

    def load_own_variables(self, store: Any) -> None:
        """Reads all variables by path, for Keras' saving.

        Raises:
            ValueError: Listing what is missing and what is left over; nothing is changed then.
        """
        later = None if self._average is None else self._average.loads_later
        waiting = state.load(self.variables_by_path(), store, later)
        if waiting:
            self._average.load(waiting)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        # `tf.train.Checkpoint(optimizer=...)` saves by these names too, not by position.
        return dict(self.variables_by_path())

    def __dir__(self) -> list[str]:
        # Keras' saving walks `dir` and would save the inner optimizer a second time, by position.
        return [name for name in super().__dir__() if name != "optimizer"]
