"""The state of an optimizer: a pytree, of which every leaf is an array."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optimization.rules.rule import origins

Tree = Any
"""A pytree of arrays."""


class OptimizerState(NamedTuple):
    """What an optimizer keeps between updates.

    Trees have the structure of the parameters; where a parameter has no such state there is an
    `optax.MaskedNode`. What a config does not ask for is None, and a tree where no parameter has
    such state.

    Attributes:
        step: The updates taken, int32.
        hyperparameters: What the last update used, by name: `learning_rate`,
            `learning_rate/<group>` of groups that have a rate of their own, and whatever follows a
            schedule. Before the first update they are those of the first.
        slots: Trees by the name of the slot, such as `momentum`.
        shared: What an algorithm keeps once, by group.
        masters: A tree of the float32 copies of parameters in float16 and bfloat16.
        average: A tree of the averages of the weights, float32 at least.
        gradient_sums: A tree of the sums of gradients that are accumulated.
        micro_step: How many gradients these sums have.
        due_updates: The updates that were due, with those that were skipped, where `accumulation`
            grows by them.
        nonfinite_steps: The updates that were skipped because of a gradient that is not finite.
        consecutive_nonfinite: Those of them since the last update that was taken.
        gradient_norm: The norm over all gradients of the last update, before clips.
        clipped_steps: The updates in which a clip changed something.
        zclip: What ZClip keeps: the norms seen, up to its warmup, their mean and variance, and the
            updates that it has clipped.
        recent: How many of the recent values at which `skip_spikes` looks are known, and these, the
            newest last, by what they are of.
        skipped_spikes: The updates that were skipped since they were spikes.
        loss_sum: The sum of the losses of the batches of an update.
        losses: How many those are.
    """

    step: jax.Array
    hyperparameters: dict[str, jax.Array]
    slots: dict[str, Tree]
    shared: dict[str, dict[str, jax.Array]]
    masters: Tree = None
    average: Tree = None
    gradient_sums: Tree = None
    micro_step: Any = None
    due_updates: Any = None
    nonfinite_steps: Any = None
    consecutive_nonfinite: Any = None
    gradient_norm: Any = None
    clipped_steps: Any = None
    zclip: Any = None
    recent: Any = None
    skipped_spikes: Any = None
    loss_sum: Any = None
    losses: Any = None


def state_of(state: Any) -> OptimizerState:
    """Returns the state of the optimizer, inside of that of `optax.chain` and the like.

        tx = optax.chain(factory.build_optimizer(params), optax.add_noise(0.01, 0.55, 0))
        state_of(tx.init(params)).step

    Args:
        state: The state of a transformation that has one optimizer of this package in it.

    Raises:
        ValueError: If there is none, or more than one.
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, OptimizerState))
    found = [leaf for leaf in leaves if isinstance(leaf, OptimizerState)]
    if len(found) != 1:
        raise ValueError(
            "Argument `state` must have the state of one optimizer of this package in it, "
            f"received: {len(found)} of them"
        )
    return found[0]


def estimated_step_sizes(state: Any) -> dict[str, jax.Array]:
    """Returns the step sizes that optimizers estimate by themselves, as Prodigy does its d.

    Args:
        state: As for `state_of`.

    Returns:
        Estimates by the name of the group whose optimizer has it, "default" for that of all; empty
        where no optimizer estimates.

    Raises:
        ValueError: As `state_of`.
    """
    names = {rule.estimate for rule in origins()}
    kept = state_of(state).shared.items()
    return {label: own[name] for label, own in kept for name in own if name in names}


def counted(count: jax.Array, more: Any = 1) -> jax.Array:
    """Returns a count and 0 or 1; it stays at 2**31 - 2, to which an update can add 1."""
    return jnp.minimum(count, jnp.iinfo(count.dtype).max - 1 - more) + more
