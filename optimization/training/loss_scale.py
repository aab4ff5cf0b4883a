"""A loss scale that adapts itself, for updates of one batch or of several."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from optimization.configs.experiment_config import RuntimeConfig
from optimization.configs.printing import call
from optimization.keras import gradients

# Far from where float32, and with it every gradient, would become 0 or infinite.
_LEAST, _MOST = 2.0**-64, 2.0**64


@keras.saving.register_keras_serializable(package="optimization")
class DynamicLossScale(keras.optimizers.LossScaleOptimizer):
    """Halves the loss scale after an update that overflowed, doubles it after a long time without.

    Gradients go to the inner optimizer divided by the scale, and its finite check skips the update
    if one of them is not finite, on whichever replica. With accumulation that is the update of all
    its batches, which share their fate; Keras' optimizer, of which this is one, leaves out the one
    batch and takes the next in its place, so that updates and training steps drift apart. Skipped
    updates are counted by the inner optimizer, and too many in a row may be an error there.

    Args:
        inner_optimizer: A `PipelineOptimizer` with `on_nonfinite="skip"`.
        initial_scale: The loss scale at the start.
        dynamic_growth_steps: Updates without overflow after which the scale is doubled.
        name: The name of the optimizer.

    Raises:
        ValueError: When it is built, if the inner optimizer does not skip.
    """

    def __repr__(self) -> str:
        return call(type(self).__name__, self.inner_optimizer)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates all state, that of the inner optimizer included."""
        if self.built:
            return
        if not skips_nonfinite(self.inner_optimizer):
            raise ValueError(
                "Argument `inner_optimizer` must be a PipelineOptimizer with on_nonfinite='skip', "
                f"received: {type(self.inner_optimizer).__name__}"
            )
        super().build(variables)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Takes the gradients of one batch, outside of `strategy.run`.

        Raises:
            ValueError: If it is not built, and no variables are given.
        """
        if not self.built:
            if trainable_variables is None:
                raise ValueError("call `build(variables)` first, or give the variables")
            self.build(trainable_variables)
        variables = list(trainable_variables or self._trainable_variables)
        factor = 1.0 / ops.convert_to_tensor(self.dynamic_scale)
        unscaled = [
            gradient
            if gradient is None or self._overwrite_variable_with_gradient(variable)
            else gradients.scale(gradient, factor)
            for gradient, variable in zip(grads, variables, strict=True)
        ]
        self.inner_optimizer.apply(unscaled, variables)
        self._adapt()

    def _adapt(self) -> None:
        inner = self.inner_optimizer
        ends_update = ops.equal(inner.micro_step, 0)
        overflowed = ops.greater(inner.consecutive_nonfinite, 0)
        before, count = self.dynamic_scale, self.step_counter + 1
        grows = ops.equal(count, self.dynamic_growth_steps)
        factor = ops.where(overflowed, 0.5, ops.where(grows, 2.0, 1.0))
        after = ops.clip(before * factor, _LEAST, _MOST)
        starts_anew = ops.logical_or(overflowed, grows)
        count = ops.where(starts_anew, ops.zeros_like(count), count)
        self.step_counter.assign(ops.where(ends_update, count, self.step_counter))
        self.dynamic_scale.assign(ops.where(ends_update, after, before))


def skips_nonfinite(optimizer: Any) -> bool:
    """Says whether an optimizer leaves out updates whose gradients are not finite."""
    return getattr(optimizer, "on_nonfinite", None) == "skip"


def with_loss_scale(
    optimizer: keras.optimizers.Optimizer, config: RuntimeConfig | None
) -> keras.optimizers.Optimizer:
    """Returns the optimizer with the loss scaling that `config` asks for.

    That is for float16; otherwise the optimizer stays as it is. A number is the optimizer's own
    `loss_scale_factor`. "dynamic", or None, wraps it: in a `DynamicLossScale` if it skips updates
    that are not finite, as the factory's do with `on_nonfinite: skip`, in Keras' own
    `LossScaleOptimizer` otherwise.

    >>> float16 = RuntimeConfig(mixed_precision_dtype="float16")
    >>> type(with_loss_scale(keras.optimizers.SGD(0.5), float16)).__name__
    'LossScaleOptimizer'
    """
    if config is None or config.mixed_precision_dtype != "float16":
        return optimizer
    if not config.scales_dynamically:
        optimizer.loss_scale_factor = config.loss_scale
        return optimizer
    if skips_nonfinite(optimizer):
        return DynamicLossScale(optimizer)
    return keras.optimizers.LossScaleOptimizer(optimizer)
