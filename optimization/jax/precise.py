"""State in bfloat16, and weights in bfloat16 without float32 copies: `StateConfig` in JAX."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optimization.jax.plan import Leaf, wide
from optimization.rules.rounding import bits_of, key_of, rounded, salt_of
from optimization.rules.slot import Slot
from optimization.rules.state_config import StateConfig


def initial(state: StateConfig, leaf: Leaf, slot: Slot, like: jax.Array) -> jax.Array:
    """Returns a slot before the first update."""
    found = leaf.initial(slot, like)
    return found.astype(jnp.bfloat16) if state.keeps_low(slot) else found


def widened(kept: jax.Array) -> jax.Array:
    """Returns what is kept in bfloat16 in float32, and all else as it is."""
    return kept.astype(jnp.float32) if kept.dtype == jnp.bfloat16 else kept


def has_copy(state: StateConfig, x: jax.Array) -> bool:
    """Says whether a parameter has a float32 copy."""
    is_low = wide(x.dtype) != x.dtype
    return bool(is_low and (state.has_copies or x.dtype != jnp.bfloat16))


def stored(
    state: StateConfig, value: jax.Array, dtype: Any, path: str, slot: str, step: jax.Array
) -> jax.Array:
    """Returns what is kept of a value of the slot of a parameter, in a dtype, at a step."""
    how = state.weights if slot == "weight" else state.rounding
    if dtype != jnp.bfloat16 or how != "stochastic":
        return value.astype(dtype)
    value = value.astype(jnp.float32)
    key = key_of(salt_of(state.seed, path, slot), step, jnp.right_shift)
    places = jnp.zeros(value.shape, jnp.int32)
    for axis in range(value.ndim):  # one by one, so that each device makes its own
        stride = math.prod(value.shape[axis + 1 :])
        places += lax.broadcasted_iota(jnp.int32, value.shape, axis) * (stride % 2**31)
    word = lax.bitcast_convert_type(value, jnp.int32)
    word = rounded(word, bits_of(places, key, jnp.right_shift))
    found = jnp.where(jnp.isfinite(value), lax.bitcast_convert_type(word, jnp.float32), value)
    return found.astype(dtype)
