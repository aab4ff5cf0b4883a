"""What is the same for all parameters of a transformation: clips, accumulation, the average."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from optimization.configs.ramp import Ramp
from optimization.jax.gradients import GroupClips
from optimization.jax.spikes import Spikes
from optimization.rules.state_config import StateConfig
from optimization.schedules.averages import AverageDecay


class Average(NamedTuple):
    """How weights are averaged: by which decay, and how often they become their averages."""

    decay: AverageDecay
    overwrite_frequency: int | None = None

    def share(self, count: jax.Array) -> jax.Array:
        """Returns the share of the way to the weights that is moved after `count` updates."""
        since = (count - self.decay.start_step).astype(jnp.float32)
        return jnp.asarray(self.decay.moved_share(count, since, jnp), jnp.float32)


class Settings(NamedTuple):
    """What is the same for all parameters.

    Attributes:
        clips: The clips, by group.
        ramp: How many gradients make one update.
        skips: Whether an update with a gradient that is not finite is left out.
        loss_scale: What gradients are divided by first; None for 1.
        average: The average of the weights; None for none.
        state: How precise the state is kept.
        spikes: What is done about spikes.
    """

    clips: GroupClips
    ramp: Ramp = Ramp()
    skips: bool = False
    loss_scale: float | None = None
    average: Average | None = None
    state: StateConfig = StateConfig()
    spikes: Spikes = Spikes()

    @property
    def accumulates(self) -> bool:
        """Whether an update is of several gradients."""
        return self.ramp != Ramp()

    def reported(self, count: jax.Array) -> dict[str, jax.Array]:
        """Returns what follows a schedule, after `count` updates."""
        decay = None if self.average is None else self.average.decay.average_decay
        return {"average_decay": decay(count)} if callable(decay) else {}
