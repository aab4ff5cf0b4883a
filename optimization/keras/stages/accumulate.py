"""The stage that makes one update of several micro-batches, with the mean of their gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from optimization.configs.ramp import AccumulationConfig, Ramp
from optimization.configs.types import is_pending
from optimization.keras import gradients
from optimization.keras.compiling import Clearing, copies_of
from optimization.keras.control import conditionally, strategy_of, tf
from optimization.keras.gradients import Postponed, compute_dtype, is_overwritten
from optimization.keras.stages.stage import Batch, Rest, Stage, argument
from optimization.keras.state import by_unique_name


class Accumulate(Stage):
    """Adds up gradients; every k-th time the step goes on with the mean of k.

    With `accumulation` k grows: it is that of the updates that were due before, those that were
    skipped included.

    Micro-batches without a gradient for a variable count as gradient 0 of it, so that every
    variable takes part in every update. Sums are float32 at least. Variables that are overwritten
    with their gradient, such as the scales of float8 layers, get the largest one, as in Keras.
    """

    title = "accumulate"
    sees = "unscaled; every k-th time the mean of k goes on"
    set_by = "`gradient_accumulation_steps`, `accumulation`"
    shows = ("micro_step", "micro_batches")
    settable = False

    gradient_accumulation_steps: int | None = argument(
        1,
        "Calls of `apply` in one update, >= 1; it reads as None for 1, as in Keras.",
        save=lambda steps: steps or 1,
    )

    accumulation: Mapping[str, Any] | None = argument(
        None,
        "Settings of `AccumulationConfig`, where more gradients are accumulated as the training "
        "goes on, with numbers of updates as `boundaries`; None for as many in each update.",
        text=lambda accumulation: accumulation and AccumulationConfig(accumulation),
    )

    def __post_init__(self) -> None:
        steps = self.gradient_accumulation_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(
                "Argument `gradient_accumulation_steps` must be an integer >= 1, "
                f"received: gradient_accumulation_steps={steps!r}"
            )
        self._ramp = Ramp((steps,))
        if self.accumulation is not None:
            config = AccumulationConfig(self.accumulation)
            config.validate()
            if steps > 1 or config.until is not None or any(map(is_pending, config.boundaries)):
                raise ValueError(
                    "Argument `accumulation` must have `boundaries` that are numbers of updates, "
                    "and no `gradient_accumulation_steps` beside it, received: accumulation="
                    f"{self.accumulation}, gradient_accumulation_steps={steps}"
                )
            self.accumulation = config.as_dict()
            self._ramp = config.ramp()
        self.gradient_accumulation_steps = steps if steps > 1 else None
        self._variables: list[Any] = []
        self._sums: dict[int, keras.Variable] = {}  # by the variables' `id`
        self._clear = Clearing()

    @property
    def micro_step(self) -> Any:
        """Micro-batches added up since the last update; always 0 without accumulation."""
        return self.made.get("micro_step", 0)

    @property
    def micro_batches(self) -> Any:
        """How many gradients the present update is of."""
        if self.accumulation is None:
            return self.gradient_accumulation_steps or 1
        if "due_updates" not in self.made:  # not built
            return self._ramp.at(0)
        due = self.made["due_updates"]
        return ops.cast(self._ramp.at(ops.convert_to_tensor(due), ops), due.dtype)

    @property
    def _accumulates(self) -> bool:
        return self.gradient_accumulation_steps is not None or self.accumulation is not None

    def build(self, variables: Sequence[Any]) -> None:
        if not self._accumulates:
            return
        self.make("micro_step", "int")
        if self.accumulation is not None:
            self.make("due_updates", "int")
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
        if not self._accumulates:
            rest(batch)
            return
        steps = self.micro_batches
        for gradient, variable in batch.pairs:
            self._add(self._sums[id(variable)], gradient, variable)
        self.micro_step.assign((self.micro_step + 1) % steps)
        # What has a gradient may differ from one micro-batch, and one traced function, to the
        # next: all variables take part. One that is overwritten has no gradient 0, however.
        present = {id(variable) for variable in batch.variables}
        variables = [v for v in self._variables if id(v) in present or not is_overwritten(v)]
        sums = [self._sums[id(variable)] for variable in variables]
        # Lazily, sums are cleared after the update, which an error would leave out.
        may_raise = any(stage.may_raise for stage in self.pipeline.stages)
        lazily = batch.updates.are_fused and not may_raise

        def update() -> None:
            grads = [self._mean(variable, steps, lazily) for variable in variables]
            if not lazily:
                for total in sums:
                    total.assign(ops.zeros(total.shape, total.dtype))
            rest(replace(batch, grads=grads, variables=variables))
            if lazily:
                self._clear(sums)

        is_last = ops.equal(self.micro_step, 0)
        if self.accumulation is not None:
            due = self.made["due_updates"]
            due.assign_add(ops.cast(is_last, due.dtype))
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

    def _mean(self, variable: Any, steps: Any, lazily: bool) -> Any:
        total = self._sums[id(variable)]
        if self.accumulation is not None:
            steps = ops.cast(steps, total.dtype)
        if lazily and not is_overwritten(variable):
            # The sum itself, which is cleared after the update: no other tensor is made.
            copies = copies_of(total)
            return Postponed(copies[0], copies=copies).times(1 / steps)
        value = ops.copy(ops.convert_to_tensor(total))  # PyTorch clears it in place
        return value if is_overwritten(variable) else value / steps
