"""What happens on a condition known only when it runs, on every backend.

Only what is chosen acts, inside functions compiled by TensorFlow or JAX too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from optimization.keras.distribution import in_replica, tf


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
