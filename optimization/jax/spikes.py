"""What is done about spikes: ZClip, and updates that are left out; and what is kept for it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optimization.configs.spike_config import SkipSpikesConfig, ZClipConfig
from optimization.jax.gradients import norm_of
from optimization.jax.state import OptimizerState


class Spikes(NamedTuple):
    """The sections about spikes; None for what is not done."""

    zclip: ZClipConfig | None = None
    skip: SkipSpikesConfig | None = None

    @property
    def look_at_loss(self) -> bool:
        """Whether the loss is needed."""
        return self.skip is not None and "loss" in self.skip.of

    def initial(self) -> dict[str, Any]:
        """Returns what the state has of it at first, by name."""
        found: dict[str, Any] = {}
        if self.zclip is not None:
            found["zclip"] = jnp.zeros(self.zclip.SIZE, jnp.float32)
        if self.skip is not None:
            found["recent"] = {
                name: jnp.zeros(self.skip.size, jnp.float32) for name in self.skip.of
            }
            found["skipped_spikes"] = jnp.zeros([], jnp.int32)
        if self.look_at_loss:
            found["loss_sum"] = found["losses"] = jnp.zeros([], jnp.float32)
        return found

    def with_loss(self, state: OptimizerState, loss: Any, begins: Any) -> OptimizerState:
        """Returns the state with the loss of a batch, the first of an update or a further one.

        Raises:
            ValueError: If the loss is looked at, and there is none.
        """
        if not self.look_at_loss:
            return state
        if loss is None:
            message = "is needed, the loss of the batch, at which `skip_spikes` looks"
            raise ValueError(
                f"Argument `value` {message}: update(grads, state, params, value=loss)"
            )
        total, count = (jnp.where(begins, 0.0, x) for x in (state.loss_sum, state.losses))
        return state._replace(loss_sum=total + jnp.asarray(loss, jnp.float32), losses=count + 1)

    def judged(
        self, grads: Sequence[jax.Array], state: OptimizerState
    ) -> tuple[jax.Array, OptimizerState]:
        """Says whether an update is a spike, and returns the next state."""
        assert self.skip is not None
        found, recent = [], {}
        for name, kept in state.recent.items():
            value = state.loss_sum / state.losses if name == "loss" else norm_of(grads).value
            spike, recent[name] = self.skip.judge(value.astype(kept.dtype), kept, jnp)
            found.append(spike)
        return jnp.any(jnp.array(found)), state._replace(recent=recent)
