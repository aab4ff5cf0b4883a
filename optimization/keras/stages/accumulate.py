"""The stage that makes one update of several micro-batches, with the mean of their gradients."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from optimization.keras import gradients
from optimization.keras.compiling import Clearing, copies_of
from optimization.keras.control import conditionally, strategy_of, tf
from optimization.keras.gradients import Postponed, compute_dtype, is_overwritten
from optimization.keras.stages.stage import Batch, Rest, Stage, argument
from optimization.keras.state import by_unique_name


class Accumulate(Stage):
    """Adds up gradients; every k-th time the step goes on with the mean of k.

    Micro-batches without a gradient for a variable count as gradient 0 of it, so that every
    variable takes part in every update. Sums are float32 at least. Variables that are overwritten
    with their gradient, such as the scales of float8 layers, get the largest one, as in Keras.
    """

    title = "accumulate"
    sees = "unscaled; every k-th time the mean of k goes on"
    set_by = "`gradient_accumulation_steps`"
    shows = ("micro_step",)
    settable = False

    gradient_accumulation_steps: int | None = argument(
        1,
        "Calls of `apply` in one update, >= 1; it reads as None for 1, as in Keras.",
        save=lambda steps: steps or 1,
    )

    def __post_init__(self) -> None:
        steps = self.gradient_accumulation_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(
                "Argument `gradient_accumulation_steps` must be an integer >= 1, "
                f"received: gradient_accumulation_steps={steps!r}"
            )
        self.gradient_accumulation_steps = steps if steps > 1 else None
        self._variables: list[Any] = []
        self._sums: dict[int, keras.Variable] = {}  # by the variables' `id`
        self._clear = Clearing()

    @property
    def micro_step(self) -> Any:
        """Micro-batches added up since the last update; always 0 without accumulation."""
        return self.made.get("micro_step", 0)

    def build(self, variables: Sequence[Any]) -> None:
        if self.gradient_accumulation_steps is None:
            return
        self.make("micro_step", "int")
        self._variables = list(variables)
        for variable in variables:
            self._sums[id(variable)] = self.pipeline.add_variable(
                variable.shape,
                dtype=compute_dtype(variable),
                layout=getattr(variable, "_layout", None),
                name=f"{self.pipeline.path_of(variable).replace('/', '_')}_accumulator",
            )

    def variables_by_path(self) -> dict[str, keras.Variable]:
        paths = [f"accumulator/{self.pipeline.path_of(variable)}" for variable in self._variables]
        sums = zip(paths, self._sums.values(), strict=True)
        return by_unique_name([*self.made.items(), *sums])

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if self.gradient_accumulation_steps is None:
            rest(batch)
            return
        for gradient, variable in batch.pairs:
            self._add(self._sums[id(variable)], gradient, variable)
        self.micro_step.assign((self.micro_step + 1) % self.gradient_accumulation_steps)
        # What has a gradient may differ from one micro-batch, and one traced function, to the
        # next: all variables take part. One that is overwritten has no gradient 0, however.
        present = {id(variable) for variable in batch.variables}
        variables = [v for v in self._variables if id(v) in present or not is_overwritten(v)]
        sums = [self._sums[id(variable)] for variable in variables]
        # Lazily, sums are cleared after the update, which an error would leave out.
        may_raise = any(stage.may_raise for stage in self.pipeline.stages)
        lazily = batch.updates.are_fused and not may_raise

        def update() -> None:
            grads = [self._mean(variable, lazily) for variable in variables]
            if not lazily:
                for total in sums:
                    total.assign(ops.zeros(total.shape, total.dtype))
            rest(replace(batch, grads=grads, variables=variables))
            if lazily:
                self._clear(sums)

        is_last = ops.equal(self.micro_step, 0)
        conditionally(is_last, update, (), self.pipeline.all_variables())

    def _add(self, total: keras.Variable, gradient: Any, variable: Any) -> None:
        gradient = gradients.map_values(lambda values: ops.cast(values, total.dtype), gradient)
        if is_overwritten(variable):
            total.assign(ops.maximum(total, gradient))
        elif tf is None or strategy_of(total) is not None:
            total.assign_add(gradients.densify(gradient))
        elif gradients.is_sparse(gradient):
            total._value.scatter_add(gradient)
        else:  # In place, where Keras' `assign_add` makes a tensor of the sum first.
            total._value.assign_add(gradient)

    def _mean(self, variable: Any, lazily: bool) -> Any:
        total, steps = self._sums[id(variable)], self.gradient_accumulation_steps or 1
        if lazily and not is_overwritten(variable):
            # The sum itself, which is cleared after the update: no other tensor is made.
            copies = copies_of(total)
            return Postponed(copies[0], copies=copies).times(1 / steps)
        value = ops.copy(ops.convert_to_tensor(total))  # PyTorch clears it in place
        return value if is_overwritten(variable) else value / steps
