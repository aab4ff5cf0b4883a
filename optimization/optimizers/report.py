"""What `PipelineOptimizer` tells of its state."""

from typing import Any

import keras

from optimization.optimizers.group_table import (
    GroupRow,
    format_group_table,
    highest_rates,
    table_row,
)
from optimization.optimizers.texts import pipeline_text


class Report:
    """Mixin with the counters, rates and tables of an optimizer."""

    def __repr__(self) -> str:
        return pipeline_text(self)

    @property
    def iterations(self) -> keras.Variable:
        """Updates taken; Keras' own count is of micro-batches."""
        return self._iterations

    @property
    def jit_compile(self) -> bool | str:
        """Whether XLA compiles updates: True, False or "auto"."""
        return self._updates.jit_compile

    @property
    def micro_step(self) -> Any:
        """Micro-batches added up since the last update; always 0 without accumulation."""
        built = self._accumulation is not None and self._accumulation.micro_step is not None
        return self._accumulation.micro_step if built else 0

    @property
    def nonfinite_steps(self) -> Any:
        """Updates skipped so far because of a gradient that was not finite."""
        return 0 if self._finite_check.total is None else self._finite_check.total

    @property
    def consecutive_nonfinite(self) -> Any:
        """Those of them since the last update that was taken."""
        return 0 if self._finite_check.total is None else self._finite_check.consecutive

    @property
    def last_gradient_norm(self) -> Any:
        """Norm over all gradients of the last update, before clips; None without a clip."""
        return self._clip.norm

    @property
    def clipped_share(self) -> Any:
        """Share of the updates in which a clip changed something; None without a clip."""
        if self._clip.count is None:
            return None
        updates = keras.ops.maximum(self._iterations, 1)
        return keras.ops.cast(self._clip.count, "float32") / keras.ops.cast(updates, "float32")

    def learning_rates(self) -> dict[str, Any]:
        """Returns the learning rate now of each group; layers of a group count as groups."""
        return self._members.rates()

    def scheduled_values(self) -> dict[str, Any]:
        """Returns what the hyperparameters that follow a schedule are now."""
        return self._schedules.values(self._iterations)

    def frozen_variables(self) -> set[int]:
        """Returns the `id` of each variable that a group freezes."""
        frozen = self._members.frozen
        return {id(v) for i, v in enumerate(self._trainable_variables) if i in frozen}

    def group_table(self) -> list[GroupRow]:
        """Returns what each variable is trained with; `format_group_table` makes it a text.

        Raises:
            ValueError: If the optimizer is not built.
        """
        if not self.built:
            raise ValueError("The optimizer is not built: its groups are not known yet.")
        variables = self._trainable_variables
        targets = self._masters.of(variables)
        averaged = {id(w) for w in (self._average.weights if self._average else ())}
        members = self._members
        highest = highest_rates(members)
        return [
            table_row(
                self._paths[position],
                members.owners[position],
                members.member_at(position),
                targets[position],
                id(variable) in averaged,
                highest,
            )
            for position, variable in enumerate(variables)
        ]

    def format_group_table(self, variables: bool = False) -> str:
        """Returns `group_table` as a text.

        Args:
            variables: Whether each variable has a line too, below that of its group.
        """
        return format_group_table(self.group_table(), variables)
