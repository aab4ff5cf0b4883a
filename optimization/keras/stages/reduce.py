"""The first stage: gradients are summed over replicas, once."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from optimization.keras import control
from optimization.keras.compiling import translated
from optimization.keras.gradients import Postponed, compute_dtype, convert, is_sparse
from optimization.keras.stages.stage import Batch, GradsAndVars, Rest, Stage, argument

GradientFunction = Callable[[GradsAndVars], GradsAndVars]


class Reduce(Stage):
    """Sums gradients over the replicas of a strategy, where `strategy.run` has not done so."""

    title = "sum over replicas"
    sees = "the gradient of each replica; the loss is divided by the global batch size"
    set_by = "`tf.distribute`"
    shows = ("aggregate_gradients",)

    gradient_aggregator: GradientFunction | None = argument(
        None,
        "Takes (gradient, variable) pairs and returns them aggregated, instead of the sum over "
        "replicas. Without a strategy it is called by `apply`.",
        save=keras.saving.serialize_keras_object,
        load=keras.saving.deserialize_keras_object,
    )

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        self._under_strategy = control.has_strategy()

    def check(self, variables: Sequence[Any]) -> None:
        distributed = any(control.strategy_of(variable) is not None for variable in variables)
        if distributed and not self._under_strategy:
            raise ValueError(
                "The variables were made under a tf.distribute strategy: make the optimizer inside "
                "the same `strategy.scope()`."
            )

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if self._under_strategy and not control.in_replica():
            # Outside `run`: what it returned was aggregated there, by `aggregate_gradients`.
            lazily = batch.updates.are_fused
            batch = batch.with_grads([self._local(gradient, lazily) for gradient in batch.grads])
        else:
            batch = batch.with_pairs(self._aggregated(batch.pairs, batch.translation))
        if batch.variables:  # a step without a gradient ends here
            rest(batch)

    def _local(self, gradient: Any, lazily: bool) -> Any:
        """Returns this process' gradient of what `strategy.run` returned."""
        copies = self.pipeline._distribution_strategy.experimental_local_results(gradient)
        if lazily and len(copies) > 1 and not is_sparse(copies[0]):
            return Postponed(copies[0], copies=copies)
        return copies[0]

    def aggregate_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> GradsAndVars:
        """Aggregates gradients over replicas, for a step outside `strategy.run`.

        Inside `strategy.run`: the sum over replicas, or what `gradient_aggregator` returns. With
        no strategy: the pairs as they are; `apply` calls the aggregator. So each gradient is
        aggregated once. None gradients stay None, in place.

        Args:
            grads_and_vars: (gradient, variable) pairs.

        Returns:
            A list of pairs.
        """
        pairs = list(grads_and_vars)
        return self._aggregated(pairs) if control.in_replica() else pairs

    def _aggregated(self, pairs: GradsAndVars, translation: Any = None) -> GradsAndVars:
        present = [pair for pair in pairs if pair[0] is not None]
        if not present:
            return pairs
        if self.gradient_aggregator is not None:
            present = list(translated(self.gradient_aggregator, translation)(present))
        elif control.in_replica():
            # TensorFlow can't sum bfloat16 over devices; float16 would overflow or lose digits.
            wide = [convert(gradient, compute_dtype(gradient)) for gradient, _ in present]
            sums = control.sum_over_replicas(wide)
            present = list(zip(sums, (variable for _, variable in present), strict=True))
        remaining = iter(present)
        return [pair if pair[0] is None else next(remaining) for pair in pairs]
