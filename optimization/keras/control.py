"""A step that is taken on a condition known only when it runs, on every backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from optimization.keras import distribution

_BACKEND = keras.backend.backend()


def conditionally(
    predicate: Any,
    function: Callable[..., None],
    args: Sequence[Any],
    variables: Sequence[keras.Variable],
    otherwise: Callable[..., None] | None = None,
) -> None:
    """Calls `function(*args)` if a predicate holds, else `otherwise(*args)`.

    Only the chosen function acts, inside functions compiled by TensorFlow or JAX too.

    Args:
        predicate: A boolean scalar, the same on every replica.
        function: Assigns to variables and returns nothing. What differs between replicas must
            come from `args` or from variables.
        args: Tensors, or lists of them.
        variables: All variables that the functions may read or assign.
        otherwise: The same for the other case; None: nothing happens then.
    """
    otherwise = otherwise or _nothing
    if _BACKEND == "tensorflow":
        distribution.conditionally(predicate, function, otherwise, args)
    elif is_traced(predicate):
        _in_jax(predicate, function, otherwise, args, variables)
    elif bool(predicate):
        function(*args)
    else:
        otherwise(*args)


def is_traced(value: Any) -> bool:
    """Says whether a value is a placeholder inside a function that JAX compiles."""
    if _BACKEND != "jax":
        return False
    import jax

    return isinstance(value, jax.core.Tracer)


def _nothing(*args: Any) -> None:
    return None


def _in_jax(
    predicate: Any,
    function: Callable[..., None],
    otherwise: Callable[..., None],
    args: Sequence[Any],
    variables: Sequence[keras.Variable],
) -> None:
    import jax

    values = [variable.value for variable in variables]

    def branch(function: Callable[..., None]) -> Callable[[], list[Any]]:
        def new_values() -> list[Any]:
            # A scope of its own: what a branch assigns must leave it as a result.
            mapping = zip(variables, values, strict=True)
            with keras.StatelessScope(state_mapping=mapping) as scope:
                function(*args)
            return [scope.get_current_value(variable) for variable in variables]

        return new_values

    chosen = jax.lax.cond(predicate, branch(function), branch(otherwise))
    for variable, value in zip(variables, chosen, strict=True):
        variable.assign(value)
