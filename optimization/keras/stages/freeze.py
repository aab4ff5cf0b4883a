"""The stage that leaves out the groups that are frozen for the first updates."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from optimization.keras.control import conditionally
from optimization.keras.stages.stage import Batch, Rest, Stage
from optimization.keras.stages.update import Update


class Freeze(Stage):
    """Takes the variables of groups with `freeze_steps` out of updates before so many were taken.

    To what follows they are variables without gradients: they have no part in norms either.
    """

    title = "leave out what is frozen for now"
    sees = "the gradient of an update, from here on"
    set_by = "`freeze_steps` of a group"

    def __call__(self, batch: Batch, rest: Rest) -> None:
        groups = self.pipeline.param_groups
        lengths = sorted({group.freeze_steps for group in groups if group.freeze_steps})
        if not lengths:
            rest(batch)
            return
        owners, index = (
            self.pipeline.stage(Update).members.owners,
            self.pipeline._get_variable_index,
        )
        found = [owners[index(variable)] for variable in batch.variables]
        self._thaw(
            batch, [0 if owner is None else owner.freeze_steps for owner in found], lengths, rest
        )

    def _thaw(self, batch: Batch, until: Sequence[int], lengths: Sequence[int], rest: Rest) -> None:
        """Goes on with what is not frozen, of which the first thaws after the first of lengths."""
        if not lengths:
            rest(batch)
            return
        first, later = lengths[0], lengths[1:]

        def without(grads: list[Any]) -> None:
            rows = zip(grads, batch.variables, until, strict=True)
            pairs = [(gradient, variable) for gradient, variable, own in rows if own < first]
            if pairs:  # else there is no update
                rest(batch.with_pairs(pairs))

        def further(grads: list[Any]) -> None:
            self._thaw(batch.with_grads(grads), until, later, rest)

        is_early = ops.less(self.pipeline.iterations, first)
        args, variables = (list(batch.grads),), self.pipeline.all_variables()
        conditionally(is_early, without, args, variables, otherwise=further)
