"""The few facts of `tf.distribute` that the gradient pipeline needs; trivial on other backends.

A step can be taken in three places:

- no strategy: nothing to reduce;
- inside `strategy.run`: each replica holds its own gradients, to be reduced;
- outside `run` with an optimizer made under a strategy: `run` has returned reduced gradients.
"""

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

# TensorFlow where it is Keras' backend, else None.
tf: Any = importlib.import_module("tensorflow") if keras.backend.backend() == "tensorflow" else None


def has_strategy() -> bool:
    """Says whether a strategy's scope is open or its `run` is being executed."""
    return tf is not None and tf.distribute.has_strategy()


def in_replica() -> bool:
    """Says whether this code runs inside a strategy's `run`."""
    return has_strategy() and tf.distribute.get_replica_context() is not None


def replicas_of(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns the number of replicas of the strategy the optimizer was made under, or 1."""
    return optimizer._distribution_strategy.num_replicas_in_sync if tf else 1


def sum_over_replicas(gradients: Sequence[Any]) -> Sequence[Any]:
    """Sums each gradient over the replicas; inside `strategy.run` only."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)


def local_copies(variable: keras.Variable) -> list[Any]:
    """Returns the copies of a variable on this process' devices; itself if it has none."""
    strategy = strategy_of(variable)
    if strategy is None:
        return [variable]
    return list(strategy.experimental_local_results(variable.value))


def strategy_of(variable: Any) -> Any:
    """Returns the strategy a variable was made under, or None."""
    return getattr(getattr(variable, "value", variable), "distribute_strategy", None)


@contextlib.contextmanager
def creation_scope(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Where variables may be made: outside any `tf.function`, inside the optimizer's strategy."""
    if tf is None:
        yield
        return
    with tf.init_scope():
        # Entering the default strategy's scope would hide a scope that is open.
        own = optimizer._distribution_strategy
        is_open = tf.distribute.has_strategy() or own is tf.distribute.get_strategy()
        with contextlib.nullcontext() if is_open else own.scope():
            yield
