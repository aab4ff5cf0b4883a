"""The functions that formulas compute with on JAX: `jax.numpy`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optimization.jax.gradients import norm_of, sum_of_squares
from optimization.rules.arrays import Arrays


class JaxArrays(Arrays):
    """Arrays of JAX."""

    def __init__(self) -> None:
        super().__init__(jnp)

    def norm(self, x: Any, wide: bool = False) -> Any:
        """Returns the L2 norm, a scalar; see `Arrays.norm`."""
        return norm_of([x]).value if wide else jnp.sqrt(sum_of_squares(x))

    def when(self, due: Any, function: Callable[..., Any], x: Any, *others: Any) -> Any:
        """Returns a function of arrays where that is due; see `Arrays.when`."""
        return lax.cond(due, _traced(function), lambda x, *others: x, x, *others)


@functools.cache
def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of arrays that JAX traces once for all of a shape."""
    return jax.jit(functools.partial(function, FUNCTIONS))


FUNCTIONS = JaxArrays()


def zero_after(x: jax.Array) -> jax.Array:
    """Returns 0, once an array is computed."""
    zero = 0 * x[(0,) * x.ndim]
    return jnp.where(zero == 0, zero, 0)  # and not NaN
