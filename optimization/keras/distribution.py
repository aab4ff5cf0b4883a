"""The few facts of `tf.distribute` that the gradient pipeline needs; trivial on other backends.

A step can be taken in three places:

- no strategy: nothing to reduce;
- inside `strategy.run`: each replica holds its own gradients, to be reduced;
- outside `run` with an optimizer made under a strategy: `run` has returned reduced gradients.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from optimization.keras.gradients import densify, is_sparse, map_values

_TENSORFLOW = keras.backend.backend() == "tensorflow"
if _TENSORFLOW:
    import tensorflow as tf


def has_strategy() -> bool:
    """Says whether a strategy's scope is open or its `run` is being executed."""
    return _TENSORFLOW and tf.distribute.has_strategy()


def in_replica() -> bool:
    """Says whether this code runs inside a strategy's `run`."""
    return has_strategy() and tf.distribute.get_replica_context() is not None


def in_cross_replica() -> bool:
    """Says whether this code runs inside a strategy's scope, outside `run`."""
    return has_strategy() and tf.distribute.in_cross_replica_context()


def replicas_of(optimizer: keras.optimizers.Optimizer) -> int:
    """Number of replicas of the strategy the optimizer was made under; 1 without one."""
    return optimizer._distribution_strategy.num_replicas_in_sync if _TENSORFLOW else 1


def sum_over_replicas(gradients: Sequence[Any]) -> Sequence[Any]:
    """Sums each gradient over the replicas, in float32 at least. Only inside `strategy.run`.

    TensorFlow can't sum bfloat16 over devices, and float16 would overflow or lose digits.
    """
    context = tf.distribute.get_replica_context()
    gradients = [_in_float32(gradient) for gradient in gradients]
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)


def _in_float32(gradient: Any) -> Any:
    if gradient.dtype not in (tf.bfloat16, tf.float16):
        return gradient
    return map_values(lambda values: tf.cast(values, tf.float32), gradient)


def local_values(optimizer: keras.optimizers.Optimizer, gradient: Any) -> tuple[Any, ...]:
    """The copies of a reduced gradient in this process, all the same."""
    return optimizer._distribution_strategy.experimental_local_results(gradient)


def local_copies(variable: keras.Variable) -> list[Any]:
    """The copies of a variable on this process' devices; the variable itself if it has none."""
    strategy = strategy_of(variable)
    if strategy is None:
        return [variable]
    return list(strategy.experimental_local_results(variable.value))


def strategy_of(variable: Any) -> Any:
    """The strategy a variable was made under, or None."""
    return getattr(getattr(variable, "value", variable), "distribute_strategy", None)


def reduce_only_once(inner: keras.optimizers.Optimizer) -> None:
    """Keeps a Keras optimizer from summing over replicas gradients that are summed already."""
    if _TENSORFLOW:
        inner._all_reduce_sum_gradients = _as_they_are


def _as_they_are(grads_and_vars: Any) -> Any:
    return grads_and_vars


def conditionally(
    predicate: Any,
    function: Callable[..., None],
    otherwise: Callable[..., None],
    args: Sequence[Any],
) -> None:
    """Calls one of two functions, by `tf.cond`; inside `strategy.run` on every replica."""
    if not in_replica() or tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(predicate, _silent(function, args), _silent(otherwise, args))
        return

    def merged(strategy: Any, predicates: Any, args: Any) -> None:
        # Replicas may not meet inside a branch that each of them enters by itself, so they enter
        # it together: the conditional is outside, the replicas are inside.
        def on_replicas(function: Callable[..., None]) -> Callable[[], None]:
            def call() -> None:
                strategy.extended.call_for_each_replica(function, args=args)

            return call

        first = strategy.experimental_local_results(predicates)[0]
        tf.cond(first, on_replicas(function), on_replicas(otherwise))

    tf.distribute.get_replica_context().merge_call(merged, args=(predicate, tuple(args)))


def _silent(function: Callable[..., None], args: Sequence[Any]) -> Callable[[], None]:
    def call() -> None:
        # Both branches must return the same, so neither returns what the last assignment does.
        function(*args)

    return call


def add(variable: keras.Variable, gradient: Any) -> None:
    """Adds a gradient to an accumulator of the same shape; only its rows if it is sparse."""
    if not _TENSORFLOW or strategy_of(variable) is not None:
        variable.assign_add(densify(gradient))
    elif is_sparse(gradient):
        variable._value.scatter_add(gradient)
    else:  # In place, where Keras' `assign_add` makes a tensor of the sum first.
        variable._value.assign_add(gradient)


@contextlib.contextmanager
def creation_scope(optimizer: keras.optimizers.Optimizer) -> Any:
    """Where variables may be made: outside any `tf.function`, inside the optimizer's strategy."""
    if not _TENSORFLOW:
        yield
        return
    with tf.init_scope():
        # Entering the default strategy's scope would hide a scope that is open.
        own = optimizer._distribution_strategy
        if tf.distribute.has_strategy() or own is tf.distribute.get_strategy():
            yield
        else:
            with own.scope():
                yield
