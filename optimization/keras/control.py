"""Where code runs, with which backend, and what happens on a condition known only then.

A step can be taken in three places:

- no strategy of `tf.distribute`: nothing to reduce;
- inside `strategy.run`: each replica holds its own gradients, to be reduced;
- outside `run` with an optimizer made under a strategy: `run` has returned reduced gradients.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
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


def is_traced(value: Any) -> bool:
    """Says whether a value is a placeholder inside a function that JAX compiles."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return isinstance(value, jax.core.Tracer)


def _nothing(*args: Any) -> None:
    pass


def conditionally(
    predicate: Any,
    function: Callable[..., None],
    args: Sequence[Any],
    variables: Sequence[keras.Variable],
    otherwise: Callable[..., None] = _nothing,
) -> None:
    """Calls `function(*args)` if a predicate holds, else `otherwise(*args)`.

    Only what is called acts, inside functions compiled by TensorFlow or JAX too.

    Args:
        predicate: A boolean scalar, the same on every replica.
        function: Assigns to variables and returns nothing. What differs between replicas must
            come from `args` or from variables.
        args: Tensors, or lists of them.
        variables: All variables that the functions may read or assign.
        otherwise: The same for the other case.
    """
    if tf is not None:
        _in_tensorflow(predicate, function, otherwise, args)
    elif is_traced(predicate):
        values = [variable.value for variable in variables]

        def new_values(function: Callable[..., None]) -> list[Any]:
            # A scope of its own: what a branch assigns must leave it as a result.
            mapping = zip(variables, values, strict=True)
            with keras.StatelessScope(state_mapping=mapping) as scope:
                function(*args)
            return [scope.get_current_value(variable) for variable in variables]

        found = either(predicate, lambda: new_values(function), lambda: new_values(otherwise), ())
        for variable, value in zip(variables, found, strict=True):
            variable.assign(value)
    else:
        (function if bool(predicate) else otherwise)(*args)


def _in_tensorflow(
    predicate: Any,
    function: Callable[..., None],
    otherwise: Callable[..., None],
    args: Sequence[Any],
) -> None:
    def choose(predicate: Any, call: Callable[[Callable[..., None]], Any]) -> None:
        # Both branches must return the same, and assignments return something.
        tf.cond(predicate, lambda: _nothing(call(function)), lambda: _nothing(call(otherwise)))

    if not in_replica() or tf.__internal__.distribute.strategy_supports_no_merge_call():
        choose(predicate, lambda function: function(*args))
        return

    def merged(strategy: Any, predicates: Any, args: Any) -> None:
        # Replicas may not meet inside a branch that each of them enters by itself, so they enter
        # it together: the conditional is outside, the replicas are inside.
        each = strategy.extended.call_for_each_replica
        first = strategy.experimental_local_results(predicates)[0]
        choose(first, lambda function: each(function, args=args))

    tf.distribute.get_replica_context().merge_call(merged, args=(predicate, tuple(args)))


def either(
    predicate: Any,
    then: Callable[..., Sequence[Any]],
    otherwise: Callable[..., Sequence[Any]],
    tensors: Sequence[Any],
) -> Sequence[Any]:
    """Returns `then(*tensors)` if a predicate holds, else `otherwise(*tensors)`.

    These are functions of their arguments alone, and return tensors of the same shapes and dtypes.
    """
    if is_traced(predicate):
        import jax

        return jax.lax.cond(predicate, then, otherwise, *tensors)
    if tf is None or tf.executing_eagerly():
        return then(*tensors) if bool(predicate) else otherwise(*tensors)
    # `tf.cond` makes operations for each argument, and runs those of both functions as no-ops.
    kinds = [tf.TensorSpec(x.shape, x.dtype) for x in tensors]
    functions = [
        tf.function(function, autograph=False).get_concrete_function(*kinds)
        for function in (then, otherwise)
    ]
    outputs = tf.nest.flatten(functions[0].structured_outputs)
    results = tf.raw_ops.StatelessIf(
        cond=predicate,
        input=list(tensors),
        Tout=[output.dtype for output in outputs],
        then_branch=functions[0],
        else_branch=functions[1],
        output_shapes=[output.shape for output in outputs],
    )
    return list(results)
