"""Float32 copies of low-precision weights, which the inner optimizers update in their place."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from optimization.keras.copies import CopiesWeights
from optimization.keras.gradients import compute_dtype
from optimization.keras.state import by_unique_name


class MasterWeights:
    """Keeps a float32 copy of each float16 or bfloat16 weight.

    As Micikevicius et al. 2018 (arXiv:1710.03740) do. Without it a step smaller than half the
    distance to the next number of the weight's dtype is lost, and moments are as coarse as the
    weight. A weight always is its copy, cast. Where it is not, because somebody assigned to the
    weight, the copy starts from the weight again, component by component.

    Weights in float32 or float64 have no copy, and cost nothing.
    """

    def __init__(self) -> None:
        self._copies: dict[int, keras.Variable] = {}
        self._by_path: dict[str, keras.Variable] = {}

    def build(
        self,
        optimizer: CopiesWeights,
        variables: Sequence[Any],
        paths: Sequence[str],
        frozen: Sequence[int] | set[int],
    ) -> list[Any]:
        """Creates the copies, as variables of `optimizer`; returns what `of` does."""
        named = []
        for position, (variable, path) in enumerate(zip(variables, paths, strict=True)):
            if position not in frozen and _needs_copy(variable):
                copy = optimizer.add_copy(variable, variable.name)
                copy._path = path  # Keras' optimizers look for patterns in it.
                self._copies[id(variable)] = copy
                named.append((f"master/{path}", copy))
        self._by_path = by_unique_name(named)
        return self.of(variables)

    def of(self, variables: Sequence[Any]) -> list[Any]:
        """Returns for each variable what is updated: its copy, or itself if it has none."""
        return [self._copies.get(id(variable), variable) for variable in variables]

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns the copies by the paths of the weights."""
        return self._by_path

    def brought_up_to_date(self, variables: Sequence[Any]) -> list[Any]:
        """Returns what `of` does, after weights that were assigned have been taken over."""
        for variable in variables:
            copy = self._copies.get(id(variable))
            if copy is not None:
                weight, value = ops.convert_to_tensor(variable), ops.convert_to_tensor(copy)
                same = ops.equal(ops.cast(value, variable.dtype), weight)
                copy.assign(ops.where(same, value, ops.cast(weight, copy.dtype)))
        return self.of(variables)


def _needs_copy(variable: Any) -> bool:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    overwritten = getattr(variable, "overwrite_with_gradient", False)
    return compute_dtype(variable) != dtype and not overwritten
