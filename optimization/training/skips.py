"""Updates that were skipped, not finite or spikes: when there are too many."""

import math
from typing import Any

import tensorflow as tf

from optimization.configs.experiment_config import TrainerConfig
from optimization.rules.base import BaseOptimizerConfig
from optimization.training.inspection import innermost, number
from optimization.training.loss_scale import skips_nonfinite

WINDOW = 200
"""Of how many updates `trainer.max_skipped_share` is a share."""

MOST_IN_A_ROW = 50
"""The updates in a row that end a run, where `max_consecutive_nonfinite` is not set."""


class Skips:
    """Counts, in the compiled loop, the updates that an optimizer skips.

    What is kept are the steps of the last `WINDOW` skips. An update that is taken changes nothing,
    so that it costs next to nothing.

    Attributes:
        state: What a checkpoint must hold: how many were skipped in all, how many of them in a
            row at the last one, and the steps.
    """

    def __init__(self, trainer: TrainerConfig, section: BaseOptimizerConfig, optimizer: Any):
        most, share = section.max_consecutive_nonfinite, trainer.max_skipped_share
        self._row = MOST_IN_A_ROW if most is None else most + 1
        # More than there are for None. A product of floats may be above the whole number it is.
        self._recent = WINDOW + 1 if share is None else math.ceil(share * WINDOW - 1e-6)
        self._share, self._optimizer = share, optimizer
        empty = tf.constant([0, 0] + [-WINDOW] * WINDOW, tf.int64)
        with tf.device("CPU:0"):
            self.state = tf.Variable(empty, trainable=False)
        # As a part of the loop its operations would take their time in every step.
        self.add = tf.function(
            self._add, autograph=False, experimental_attributes={"_noinline": True}
        )

    def _add(self, step: tf.Tensor) -> tf.Tensor:
        """Counts the update of a training step as skipped; returns whether there are too many."""
        total, row, steps = self.state[0], self.state[1], self.state[2:]
        row = tf.where(tf.equal(steps[(total - 1) % WINDOW], step - 1), row + 1, 1)
        place = 2 + total % WINDOW
        self.state.scatter_nd_update([[0], [1], [place]], [total + 1, row, step])
        recent = tf.math.count_nonzero(self.state[2:] > step - WINDOW)
        return (row >= self._row) | (recent >= self._recent)

    def reason(self, step: int) -> str:
        """Returns why a run ends after `step` training steps, in words; "" if it goes on."""
        _, row, *steps = self.state.numpy().tolist()
        row = row if max(steps) == step else 0
        recent = sum(each > step - WINDOW for each in steps)
        if row < self._row and recent < self._recent:
            return ""
        if row >= self._row:
            what, limit = f"the last {row} updates", "max_consecutive_nonfinite of the optimizer"
        else:
            what = f"{recent} of the last {min(step, WINDOW)} updates"
            limit = f"trainer.max_skipped_share, which is {self._share:g}"
        scale = ""
        if innermost(self._optimizer) is not self._optimizer:
            scale = f" with a loss scale that has come to {number(self._optimizer.dynamic_scale):g}"
        more = f" ({recent} of the last {min(step, WINDOW)})" if row >= self._row else ""
        return (
            f"after {step} steps {what} were skipped{more}, since gradients were not finite{scale}"
            f"{self._spikes()}; the limit is {limit}"
        )

    def _spikes(self) -> str:
        inner = innermost(self._optimizer)
        if not skips_spikes(inner):
            return ""
        return f", or `skip_spikes` found spikes ({number(inner.skipped_spikes):g} in all)"


def skips_spikes(optimizer: Any) -> bool:
    """Whether an optimizer leaves out updates that are spikes."""
    return getattr(optimizer, "skip_spikes", None) is not None


def may_skip(optimizer: Any) -> bool:
    """Whether an optimizer skips updates: one of ours, or any in a `LossScaleOptimizer`."""
    inner = innermost(optimizer)
    return skips_nonfinite(inner) or skips_spikes(inner) or inner is not optimizer
