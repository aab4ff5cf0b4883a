"""The formula of a rule on JAX, in an order in which XLA moves everything in place."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from optimization.jax.functions import FUNCTIONS
from optimization.rules.arrays import State
from optimization.rules.rule import Numbers, Rule, given


def updated(
    rule: Rule, g: jax.Array, w: jax.Array, kept: Mapping[str, jax.Array], h: Numbers
) -> tuple[jax.Array, Mapping[str, jax.Array]]:
    """Returns what is added to a weight, and what has moved of its state."""
    state = State(kept)
    update = _update(rule, g, w, state, h)
    moved = state.moved()
    if rule.summed:
        # XLA would copy a weight of which the sum might be taken later: so it moves by a rate that
        # is known after the sums.
        zeros = [_zero_after(moved[name]).astype(h.lr.dtype) for name in rule.summed]
        delayed = Numbers(**{**vars(h), "lr": sum(zeros, h.lr)})
        update = _update(rule, g, w, _Settled(kept, moved), delayed)
    last = [name for name in rule.declared("moves_last") if name in moved]
    if last and w.size:
        # XLA would copy what the step is of, to move it before: so it moves by arrays that are
        # known after the step.
        zero = _zero_after(w + update)
        first = {name: value for name, value in moved.items() if name not in last}
        later = _Settled(kept, {n: x + zero.astype(x.dtype) for n, x in first.items()})
        _update(rule, g + zero, w, later, h)
        moved = {**later.moved(), **first}
    return update, moved


def _update(rule: Rule, g: jax.Array, w: jax.Array, state: State, h: Numbers) -> jax.Array:
    rate = rule.decay_ahead(h)
    if given(rate):
        decay = w * (h.lr * rate)
        update = -(decay + rule.modified_step(g, w - decay, state, h, FUNCTIONS))
    else:
        update = -rule.modified_step(g, w, state, h, FUNCTIONS)
    return jnp.broadcast_to(update, w.shape)


class _Settled(State):
    """A state of which some values are known after their moves."""

    def __init__(self, values: Mapping[str, Any], settled: Mapping[str, Any]):
        super().__init__(values)
        self.__dict__["_settled"] = settled

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._settled.get(name, value))

    def scale_add(self, name: str, factor: Any, value: Any) -> Any:
        setattr(self, name, factor * self._kept(name) + value)
        return getattr(self, name)


def _zero_after(x: jax.Array) -> jax.Array:
    """Returns 0, once an array is computed."""
    zero = 0 * x[(0,) * x.ndim]
    return jnp.where(zero == 0, zero, 0)  # and not NaN
