"""State in bfloat16, and weights in bfloat16 without float32 copies: `StateConfig` in Keras."""

import math
from typing import Any

import keras
from keras import ops

from optimization.rules.rounding import bits_of, key_of, rounded, salt_of
from optimization.rules.state_config import StateConfig

_LOW = "bfloat16"


def is_low(x: Any) -> bool:
    """Says whether a variable, or an array, is in bfloat16."""
    return keras.backend.standardize_dtype(x.dtype) == _LOW


def stored(
    state: StateConfig | None, value: Any, kept: Any, index: int, slot: str, done: Any
) -> Any:
    """Returns what is kept of a value in the slot of a variable.

    Args:
        state: How precise; None for float32.
        value: What an update has made.
        kept: The variable that has it.
        index: The place of the weight among those that the optimizer trains.
        slot: The name of the slot; "weight" for the weight itself.
        done: The updates taken before this one.
    """
    how = None if state is None else state.weights if slot == "weight" else state.rounding
    if state is None or how != "stochastic" or not is_low(kept):
        return ops.cast(value, kept.dtype)
    value = ops.broadcast_to(ops.cast(value, "float32"), kept.shape)
    shift = ops.bitwise_right_shift
    key = key_of(salt_of(state.seed, index, slot), ops.cast(done, "int32"), shift)
    places = ops.reshape(ops.arange(math.prod(kept.shape), dtype="int32"), kept.shape)
    word = rounded(ops.view(value, "int32"), bits_of(places, key, shift))
    found = ops.where(ops.isfinite(value), ops.view(word, "float32"), value)
    return ops.cast(found, kept.dtype)
