"""Gradient accumulation: one update with the mean gradient of several micro-batches."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from optimization.keras.compiling import Clearing, copies_of
from optimization.optimizers import distribution, gradients
from optimization.optimizers.control import conditionally
from optimization.optimizers.gradients import Scaled
from optimization.optimizers.paths import path_of
from optimization.optimizers.slots import compute_dtype
from optimization.optimizers.state import by_unique_name

GradsAndVars = list[tuple[Any, Any]]


class Accumulation:
    """Adds up gradients and passes on the mean of every `steps` of them.

    Micro-batches without a gradient for a variable count as gradient 0 of it, so that every
    variable takes part in every update. Sums are float32 at least. Variables that are overwritten
    with their gradient, such as the scales of float8 layers, get the largest one, as in Keras.

    Args:
        steps: Micro-batches in one update, >= 2.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.micro_step: keras.Variable | None = None
        self._variables: list[Any] = []
        self._paths: list[str] = []
        self._sums: list[keras.Variable] = []
        self._clear = Clearing()

    @classmethod
    def of(cls, steps: int | None) -> "Accumulation | None":
        """Returns an accumulation of so many micro-batches, None for None."""
        return None if steps is None else cls(steps)

    def build(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[Any],
    ) -> None:
        """Creates the sums, as variables of `optimizer`."""
        self.micro_step = optimizer.add_variable((), dtype="int", name="micro_step")
        self._variables = list(variables)
        self._paths = [path_of(variable) for variable in variables]
        self._sums = [
            optimizer.add_variable(
                variable.shape,
                dtype=compute_dtype(variable),
                layout=getattr(variable, "_layout", None),
                name=f"{path.replace('/', '_')}_accumulator",
            )
            for variable, path in zip(variables, self._paths, strict=True)
        ]

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns its variables by the paths of the weights they belong to."""
        named = [("micro_step", self.micro_step)]
        named += [
            (f"accumulator/{path}", total)
            for path, total in zip(self._paths, self._sums, strict=True)
        ]
        return by_unique_name(named)

    def add(
        self,
        pairs: GradsAndVars,
        then: Callable[[GradsAndVars], None],
        variables: Sequence[keras.Variable],
        lazily: bool = False,
    ) -> None:
        """Adds gradients; every `steps`-th time calls `then` with the mean, and starts anew.

        Args:
            pairs: (gradient, variable) pairs.
            then: Takes the pairs of an update.
            variables: All variables that `then` may assign.
            lazily: Whether `then` takes means that are still to be scaled.
        """
        places = {id(variable): index for index, variable in enumerate(self._variables)}
        for gradient, variable in pairs:
            self._add(self._sums[places[id(variable)]], gradient, variable)
        self.micro_step.assign((self.micro_step + 1) % self.steps)
        # What has a gradient may differ from one micro-batch, and one traced function, to the
        # next: all variables take part. One that is overwritten has no gradient 0, however.
        present = {places[id(variable)] for _, variable in pairs}
        taking_part = [
            index
            for index, variable in enumerate(self._variables)
            if index in present or not _is_overwritten(variable)
        ]

        def update_lazily() -> None:
            then([(self._postponed_mean(index), self._variables[index]) for index in taking_part])
            self._clear([self._sums[index] for index in taking_part])

        def update() -> None:
            means = [(self._mean(index), self._variables[index]) for index in taking_part]
            for index in taking_part:
                total = self._sums[index]
                total.assign(ops.zeros(total.shape, total.dtype))
            then(means)

        on_last = update_lazily if lazily else update
        conditionally(ops.equal(self.micro_step, 0), on_last, (), variables)

    def _add(self, total: keras.Variable, gradient: Any, variable: Any) -> None:
        gradient = gradients.map_values(lambda values: ops.cast(values, total.dtype), gradient)
        if _is_overwritten(variable):
            total.assign(ops.maximum(total, gradient))
        else:
            distribution.add(total, gradient)

    def _postponed_mean(self, index: int) -> Any:
        total = self._sums[index]
        if _is_overwritten(self._variables[index]):
            return self._mean(index)
        # The sum itself, which is cleared after the update: no other tensor is made.
        copies = copies_of(total)
        return Scaled(copies[0], copies=copies).times(1 / self.steps)

    def _mean(self, index: int) -> Any:
        total = ops.copy(ops.convert_to_tensor(self._sums[index]))  # PyTorch clears it in place
        return total if _is_overwritten(self._variables[index]) else total / self.steps


def _is_overwritten(variable: Any) -> bool:
    return getattr(variable, "overwrite_with_gradient", False)


def checked_steps(steps: int) -> int | None:
    """Returns the number of micro-batches in an update, None for 1.

    Raises:
        ValueError: If it is not an integer >= 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(
            "Argument `gradient_accumulation_steps` must be an integer >= 1, "
            f"received: gradient_accumulation_steps={steps!r}"
        )
    return steps if steps > 1 else None  # None is Keras' word for no accumulation
