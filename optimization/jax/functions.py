"""The functions that formulas compute with on JAX: `jax.numpy`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optimization.jax.gradients import norm_of, sum_of_squares
from optimization.rules.arrays import Arrays

_SMALL = 1 << 15  # numbers that stay in a cache: a condition takes longer than a pass over them


class JaxArrays(Arrays):
    """Arrays of JAX."""

    def __init__(self) -> None:
        super().__init__(jnp)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        """Returns x where a condition holds, else y.

        With a condition that is one for all, y is written over a large x only where it does not
        hold: a selection would read and write the whole in each update, and `lax.cond` would copy
        x.
        """
        if jnp.ndim(condition) or jnp.size(x) <= _SMALL or jnp.shape(x) != jnp.shape(y):
            return jnp.where(condition, x, y)
        return lax.fori_loop(0, jnp.where(condition, 0, 1), lambda _, x: y.astype(x.dtype), x)

    def bounded(self, x: Any, most: float, tells: bool = True) -> Any:
        """Returns x within bounds; see `Arrays.bounded`."""
        if tells or self.resolution(x) < 1e-10:
            return super().bounded(x, most, tells)
        # XLA computes these two in a sum, but no clamp, which it makes of bounds that it knows.
        bounds = jnp.asarray(-most, x.dtype), jnp.asarray(most, x.dtype)
        least, largest = lax.optimization_barrier(bounds)
        return jnp.maximum(jnp.minimum(x, largest), least)

    def sum_along(
        self, x: Any, start: Any, end: Any, most: float, is_within: Callable[[], Any]
    ) -> Any:
        """Returns the sum of x (start - end); see `Arrays.sum_along`.

        The bounds are as slow as a pass over a large array each, so that they are only where they
        act; but on a mesh, where devices would sum up inside of a condition.
        """
        is_small, is_wide = x.size <= _SMALL, self.resolution(x) < 1e-10
        if is_small or is_wide or not jax.sharding.get_abstract_mesh().empty:
            return super().sum_along(x, start, end, most, is_within)

        def beyond(_: Any, x: Any, start: Any, end: Any) -> Any:
            return jnp.sum(jnp.clip(x, -most, most) * (start - end))

        # Outside of the condition, where all cores sum up.
        found = jnp.sum(x * (start - end))
        return lax.cond(is_within(), lambda found, *_: found, beyond, found, x, start, end)

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
