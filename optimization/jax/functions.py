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
        arrays = [_whole(array) for array in (x, *others)]
        return _whole(lax.cond(due, _traced(function), lambda x, *others: x, *arrays))


def _whole(x: jax.Array) -> jax.Array:
    """Returns an array that each device has as a whole, where a mesh is known here.

    Otherwise devices would exchange parts inside of a condition, and wait for each other there.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return lax.with_sharding_constraint(x, jax.sharding.PartitionSpec())


@functools.cache
def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of arrays that JAX traces once for all of a shape."""
    return jax.jit(functools.partial(function, FUNCTIONS))


FUNCTIONS = JaxArrays()


def zero_after(x: jax.Array) -> jax.Array:
    """Returns 0, once an array is computed."""
    zero = 0 * x[(0,) * x.ndim]
    return jnp.where(zero == 0, zero, 0)  # and not NaN
