"""The compiled loops: many training steps, or one evaluation, in a single call."""

import contextlib
import typing
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from optimization.configs.ramp import Ramp
from optimization.keras.compiling import traceable, unconverted
from optimization.keras.gradients import global_norm, sum_duplicates
from optimization.keras.gradients import scale as scaled
from optimization.rules.base import BaseOptimizerConfig
from optimization.training.ending import Ending
from optimization.training.errors import (
    NonFiniteGradientsError,
    NonFiniteLossError,
    TrainingError,
)
from optimization.training.finite import HELP
from optimization.training.inspection import accumulated, innermost, nonfinite_variables
from optimization.training.means import COUNT, Means
from optimization.training.norms import Norms
from optimization.training.skips import Skips, may_skip

if typing.TYPE_CHECKING:
    from optimization.training.trainer import Trainer

_FLAGS = "signals"


class _Whole:
    """Functions of `Ramp.at`, of which numbers are int64 as those of batches are."""

    @staticmethod
    def where(condition: tf.Tensor, then: int, otherwise: int) -> tf.Tensor:
        return tf.where(condition, tf.constant(then, tf.int64), tf.constant(otherwise, tf.int64))


class Steps:
    """One training step and one validation step on all replicas, and loops of them.

    A training step is one update of the weights: of one batch, or of as many as the optimizer
    accumulates. For each batch, gradients are summed over the replicas inside
    `strategy.run`, and `optimizer.apply` runs once, outside of it and outside of the strategy's
    scope. The `global_step` counts training steps.
    """

    def __init__(self, trainer: "Trainer", train_metrics: list, validation_metrics: list):
        self._strategy = trainer.strategy
        self._task = trainer.task
        runtime = trainer.config.runtime
        self._model = trainer.model
        self._optimizer = optimizer = trainer.optimizer
        self._global_step = trainer.global_step
        kind = trainer.config.trainer.norm_summaries
        self.norms = None if kind is None else Norms(kind, self._model, self._optimizer)
        section = trainer.optimizer_config.optimizer.get()
        self._ramp = trainer.optimizer_config.ramp()
        self._accumulates = self._ramp != Ramp()
        # Of what TensorFlow would translate only a user's functions and the loops themselves gain
        # by it, and translating takes seconds.
        users: Callable = (lambda function: function) if runtime.run_eagerly else traceable
        self._train_step = users(self._task.train_step)
        self._validation_step = users(self._task.validation_step)
        # The optimizer's own sum over replicas, or a plain one for other Keras optimizers.
        inner: Any = innermost(optimizer)
        aggregate = getattr(inner, "aggregate_gradients", _sum_over_replicas)
        functions = ("gradient_aggregator", "gradient_transformers")
        optimizers = users if any(getattr(inner, name, None) for name in functions) else unconverted
        self._aggregate: Callable[[list], list] = optimizers(aggregate)
        self._apply: Callable = optimizers(optimizer.apply)
        spikes = trainer.optimizer_config.skip_spikes
        self._tells_loss = spikes is not None and "loss" in spikes.of
        skips = section.on_nonfinite == "skip" or spikes is not None
        self.train_means = Means(train_metrics, finite_only=skips, strategy=self._strategy)
        self.validation_means = Means(validation_metrics)
        self.skips: Skips | None = None
        if may_skip(optimizer):
            self.skips = Skips(trainer.config.trainer, section, optimizer)
        self.ending = Ending(self._strategy)
        compiled: Callable = (lambda function: function) if runtime.run_eagerly else self._traced
        self._forward_backward = self._train_replica
        if runtime.enable_xla:
            self._forward_backward = tf.function(
                self._train_replica, jit_compile=True, autograph=False
            )
        self.train = compiled(self._train)
        self.validate = compiled(self._validate)
        # Part of a save, which a signal does not end.
        self._share = self._shared
        if not runtime.run_eagerly:
            self._share = tf.function(self._shared, autograph=False)

    def _train(self, iterator: Any, steps: tf.Tensor) -> tf.Tensor:
        """Runs `steps` training steps; returns the global gradient norm of the last one.

        What `ending` says ends it before, after a whole update.
        """
        norm = tf.constant(0.0)
        index = tf.zeros_like(steps)
        start = index  # of the update that runs
        batches = self._batches(steps)
        # With norms the last batch is apart: what measures them is then no part of the loop.
        looped = batches if self.norms is None else batches - 1
        while self._goes_on(index, start, looped):
            gradients, scale = self._backward(next(iterator))
            if index == batches - 1:
                norm = self._norm(gradients, scale)
            updates = self._updates()
            self._apply(gradients, self._model.trainable_variables)
            index += 1
            completes = tf.equal(index - start, self._batches_of_one())
            start = tf.where(completes, index, start)
            self._global_step.assign_add(tf.cast(completes, tf.int64))
            self._count_skip(completes, updates)
        if self.norms is not None and self._goes_on(index, start, batches):
            norm = self._measured(self.norms, next(iterator))
        return norm

    @unconverted
    def _goes_on(self, index: tf.Tensor, start: tf.Tensor, batches: tf.Tensor) -> tf.Tensor:
        """Returns whether batch `index` is taken: it is one of the update that has begun, too."""
        begins = self.ending.goes_on()
        if self._accumulates:
            begins = tf.logical_or(begins, index > start)
        return tf.logical_and(index < batches, begins)

    @unconverted
    def _batches(self, steps: tf.Tensor) -> tf.Tensor:
        """Returns how many batches the next training steps take."""
        if not self._ramp.boundaries:
            return steps * self._ramp.counts[0]
        done = tf.convert_to_tensor(self._global_step)
        return self._ramp.before(done + steps, tf) - self._ramp.before(done, tf)

    @unconverted
    def _batches_of_one(self) -> tf.Tensor:
        """Returns how many batches the present training step takes."""
        if not self._ramp.boundaries:
            return tf.constant(self._ramp.counts[0], tf.int64)
        return self._ramp.at(tf.convert_to_tensor(self._global_step), _Whole)

    @unconverted
    def _updates(self) -> tf.Tensor | None:
        """Returns how many updates were taken, if some may be skipped."""
        if self.skips is None:
            return None
        return tf.convert_to_tensor(innermost(self._optimizer).iterations.value)

    @unconverted
    def _count_skip(self, completes: tf.Tensor, before: tf.Tensor | None) -> None:
        """Counts the training step as skipped, if it is done and there are no more updates."""
        if (skips := self.skips) is None:
            return
        skipped = tf.logical_and(completes, tf.equal(self._updates(), before))
        tf.cond(
            skipped,
            lambda: self.ending.end_by_skips(skips.add(self._global_step)),
            lambda: None,
        )

    def check_skips(self, step: int) -> None:
        """Raises a `NonFiniteGradientsError` if too many updates were skipped up to `step`."""
        if self.skips is not None and (reason := self.skips.reason(step)):
            raise NonFiniteGradientsError(f"{reason}; {HELP}, or bfloat16 in place of float16")

    @unconverted
    def _backward(self, inputs: Any) -> tuple[list, tf.Tensor]:
        """Returns the gradients of a batch, and what the loss was scaled by."""
        # Which the update may change.
        scale = tf.cast(self._optimizer.scale_loss(tf.constant(1.0)), tf.float32)
        gradients, sums = self._run(self._replica_gradients, inputs)
        sums = self._agreed(sums)
        self.train_means.add(sums)
        if self._tells_loss:
            innermost(self._optimizer).tell_loss(sums["loss"] / sums[COUNT])
        return gradients, scale

    @unconverted
    def _measured(self, norms: Norms, inputs: Any) -> tf.Tensor:
        """Takes the last batch of an update, with the norms; returns the global gradient norm."""
        gradients, scale = self._backward(inputs)
        norm, variables = self._norm(gradients, scale), self._model.trainable_variables
        totals, factor = gradients, 1 / scale
        if self._accumulates:
            totals, factor = self._totals(gradients, scale), 1 / self._count()
        totals = [_scaled(total, factor) for total in totals]
        updates = self._updates()
        norms.measure(totals, lambda: self._apply(gradients, variables))
        self._global_step.assign_add(1)
        self._count_skip(tf.constant(True), updates)
        return norm

    @unconverted
    def _norm(self, gradients: list, scale: tf.Tensor) -> tf.Tensor:
        """Returns the norm of the gradient of an update, before its last batch is applied."""
        if not self._accumulates:
            return _global_norm(self._thawed(gradients)) / scale
        return _global_norm(self._thawed(self._totals(gradients, scale))) / self._count()

    def _thawed(self, gradients: list) -> list:
        """Returns gradients, with None for what is frozen, and zeros for what is so for now."""
        inner: Any = innermost(self._optimizer)
        frozen: set[int] = getattr(inner, "frozen_variables", set)()
        until: dict[int, int] = getattr(inner, "thawing_variables", dict)()
        done, found = tf.cast(inner.iterations.value, tf.int64), []
        for gradient, variable in zip(gradients, self._model.trainable_variables, strict=True):
            first = until.get(id(variable), 0)
            if gradient is None or id(variable) in frozen:
                gradient = None
            elif first:
                dense = tf.convert_to_tensor(_scaled(gradient, 1.0))
                gradient = tf.where(done >= first, dense, tf.zeros_like(dense))
            found.append(gradient)
        return found

    def _count(self) -> Any:
        """Returns by what sums are divided to be the means of the present training step."""
        if not self._ramp.boundaries:
            return self._ramp.counts[0]
        return tf.cast(self._batches_of_one(), tf.float32)

    def _totals(self, gradients: list, scale: tf.Tensor) -> list:
        """Returns what has been added up with the last batch; None for what is frozen."""
        before = accumulated(self._optimizer, self._model.trainable_variables)
        return [
            total
            if gradient is None or total is None
            else total + tf.convert_to_tensor(gradient) / scale
            for total, gradient in zip(before, gradients, strict=True)
        ]

    @unconverted
    def _run(self, function: Callable, inputs: Any) -> Any:
        """Runs `function` on every replica; as its results are the same on all, returns one."""
        results = self._strategy.run(function, args=(inputs,))
        return self._strategy.experimental_local_results(results)[0]

    def _replica_gradients(self, inputs: Any) -> tuple[list, dict]:
        gradients, logs = self._forward_backward(inputs)
        pairs = zip(gradients, self._model.trainable_variables, strict=True)
        gradients = [gradient for gradient, _ in self._aggregate(list(pairs))]
        return gradients, self._summed(logs, inputs)

    def _summed(self, logs: dict, inputs: Any) -> dict:
        flags = {_FLAGS: self.ending.flags()} if self.ending.together else {}
        return _sums(logs, inputs, flags)

    @unconverted
    def _agreed(self, sums: dict) -> dict:
        """Returns the sums without what the workers tell each other, which may end the loop."""
        if self.ending.together:
            self.ending.agree(sums[_FLAGS])
        return {name: value for name, value in sums.items() if name != _FLAGS}

    def _traced(self, function: Callable) -> Callable:
        """Returns a compiled function; a signal ends the run while it is traced."""

        def traced(*arguments: Any) -> Any:
            with self.ending.interruptible():
                return function(*arguments)

        return tf.function(traced)

    def _train_replica(self, inputs: Any) -> tuple[list, dict]:
        return self._train_step(inputs, self._model, self._optimizer, self.train_means.metrics)

    def keep(self) -> None:
        """Makes what a checkpoint holds all that the next steps depend on; all workers call it."""
        self._share()
        self.train_means.keep()

    @unconverted
    def _shared(self) -> None:
        """Gives all replicas what the first has where each has its own.

        So moving statistics, which each updates by its own examples, are those of a checkpoint.
        """
        own = self._model.non_trainable_variables
        if not own or self._strategy.num_replicas_in_sync == 1:
            return

        def read() -> list:
            return [tf.convert_to_tensor(variable)[tf.newaxis] for variable in own]

        def assign(values: list) -> None:
            for variable, value in zip(own, values, strict=True):
                variable.assign(value)

        firsts = [self._strategy.gather(value, axis=0)[0] for value in self._strategy.run(read)]
        self._strategy.run(assign, args=(firsts,))

    def _validate(self, iterator: Any) -> None:
        self._shared()
        for inputs in iterator:
            sums = self._run(self._validation_replica, inputs)
            self.validation_means.add(self._agreed(sums))
            if tf.logical_not(self.ending.goes_on()):
                break

    def _validation_replica(self, inputs: Any) -> dict:
        logs = self._validation_step(inputs, self._model, self.validation_means.metrics)
        return self._summed(logs, inputs)


def _sum_over_replicas(grads_and_vars: list) -> list:
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return grads_and_vars
    present = [gradient for gradient, _ in grads_and_vars if gradient is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [(None if g is None else next(summed), v) for g, v in grads_and_vars]


def _sums(logs: dict, inputs: Any, more: dict | None = None) -> dict:
    """Turns means over the examples of a replica into sums over all, and adds their count.

    With `more` that is to be summed, as it is.
    """
    if "loss" not in logs:
        raise ValueError(f"a step must return its 'loss', received: {sorted(logs)}")
    count = tf.cast(tf.shape(tf.nest.flatten(inputs)[0])[0], tf.float32)
    # The mean over an empty slice is NaN and must not count.
    sums = {
        name: tf.where(count > 0, tf.cast(value, tf.float32), 0.0) * count
        for name, value in logs.items()
    }
    sums |= {COUNT: count, **(more or {})}
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return sums
    return context.all_reduce(tf.distribute.ReduceOp.SUM, sums)


def _scaled(gradient: Any, factor: Any) -> Any:
    if isinstance(gradient, keras.Variable):  # what has been added up, without a gradient of now
        gradient = gradient.value
    return None if gradient is None else scaled(gradient, factor)


def _global_norm(grads: list) -> tf.Tensor:
    present = [sum_duplicates(gradient) for gradient in grads if gradient is not None]
    return tf.cast(global_norm(present).value, tf.float32)


def check_loss(loss: float, step: int, section: BaseOptimizerConfig) -> None:
    """Raises a `NonFiniteLossError` unless the mean loss up to `step` is finite.

    A mean of no examples, where the run ends before a step, is none.

    With `on_nonfinite: skip` such a batch changes no weights, and the run goes on.
    """
    if section.on_nonfinite != "skip" and not abs(loss) < float("inf"):
        raise NonFiniteLossError(f"the loss is {loss} after {step} steps; {HELP}")


@contextlib.contextmanager
def explained_errors(trainer: "Trainer", stop: int) -> Iterator[None]:
    """Tells in words what may go wrong in the training steps up to `stop`.

    Raises:
        TrainingError: If the data end before.
        NonFiniteGradientsError: If the optimizer's check of gradients ends the training.
    """
    try:
        yield
    except (tf.errors.OutOfRangeError, StopIteration) as error:
        raise TrainingError(
            f"the training data ended before step {stop}: "
            f"{type(trainer.task).__name__}.build_inputs() must return a dataset without end "
            "for training, as `repeat()` makes one"
        ) from error
    except (tf.errors.InvalidArgumentError, ArithmeticError) as error:
        variables = nonfinite_variables(error)
        if variables is None:
            raise
        raise NonFiniteGradientsError(
            f"after {int(trainer.optimizer.iterations.numpy())} updates the gradients of these "
            f"variables are not finite: {variables}; {HELP}"
        ) from error
