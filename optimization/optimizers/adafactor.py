"""Adafactor with the arguments of T5X and Flax, which TensorFlow Model Garden announces."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from optimization.optimizers.paths import path_of
from optimization.optimizers.patterns import (
    as_pattern_list,
    matches_any,
    require_matches,
)
from optimization.optimizers.slots import (
    Float32Slots,
    as_dense,
    compute_dtype,
    root_mean_square,
)


@keras.saving.register_keras_serializable(package="optimization")
class Adafactor(Float32Slots, keras.optimizers.Optimizer):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), its memory factored for real.

    With t = iterations + 1 - step_offset and b = 1 - t^-decay_rate:

        R <- b R + (1 - b) mean(g^2 + epsilon1, d0)   d0, d1: the largest and second largest axis
        C <- b C + (1 - b) mean(g^2 + epsilon1, d1)
        V = R C / mean(R, d1)                         not factored: V <- b V + (1 - b)(g^2 + eps1)
        u = g / sqrt(V);  u <- u / max(1, RMS(u) / clipping_threshold)
        u <- lr * u, times max(RMS(w), epsilon2) with `multiply_by_parameter_scale`
        u <- m <- beta1 m + (1 - beta1) u             with `beta1`
        w <- (1 - weight_decay) w - u

    A variable is factored if it has two axes or more and the second largest has at least
    `min_dim_size_to_factor` entries; then only R and C are kept. The weight decay is not
    multiplied by the learning rate, as in T5X and optax.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the step.
        factored: Keep row and column means instead of the whole second moment.
        multiply_by_parameter_scale: Take steps relative to the RMS of the weights.
        beta1: Decay of a momentum over the scaled update, in [0, 1); None keeps no momentum.
        decay_rate: Exponent of the second moment's decay, > 0.
        step_offset: Step at which fine-tuning starts. Up to it t is 1, where T5X has no number.
        clipping_threshold: Bound on the update's RMS, > 0; None turns it off.
        min_dim_size_to_factor: Smallest second largest axis that is factored.
        epsilon1: Added to the squared gradient.
        epsilon2: Floor of the parameter scale.
        weight_decay: Rate of the decay per step; None turns it off.
        include_in_weight_decay: Regular expressions searched in the full path: only these
            decay; None: all variables.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For a value out of its range or an invalid regular expression; at build, for
            one that matches no variable.
    """

    argument_attributes: ClassVar[dict[str, str]] = {"weight_decay": "decoupled_decay"}

    def __init__(
        self,
        learning_rate: Any = 0.001,
        factored: bool = True,
        multiply_by_parameter_scale: bool = True,
        beta1: float | None = None,
        decay_rate: float = 0.8,
        step_offset: int = 0,
        clipping_threshold: float | None = 1.0,
        min_dim_size_to_factor: int = 128,
        epsilon1: float = 1e-30,
        epsilon2: float = 1e-3,
        weight_decay: float | None = None,
        include_in_weight_decay: Sequence[str] | str | None = None,
        name: str = "Adafactor",
        **kwargs: Any,
    ):
        # The base class would decay every variable times the rate: its argument stays unset.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if beta1 is not None and not 0 <= beta1 < 1:
            raise ValueError(f"Argument `beta1` must be None or in [0, 1), received: beta1={beta1}")
        for argument, value in (
            ("decay_rate", decay_rate),
            ("clipping_threshold", clipping_threshold),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"Argument `{argument}` must be > 0, received: {argument}={value}")
        self.factored = factored
        self.multiply_by_parameter_scale = multiply_by_parameter_scale
        self.beta1 = beta1
        self.decay_rate = decay_rate
        self.step_offset = step_offset
        self.clipping_threshold = clipping_threshold
        self.min_dim_size_to_factor = min_dim_size_to_factor
        self.epsilon1 = epsilon1
        self.epsilon2 = epsilon2
        self.decoupled_decay = weight_decay
        self._include = as_pattern_list(include_in_weight_decay, "include_in_weight_decay")

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates row and column means, or whole second moments, and momentums."""
        if self.built:
            return
        require_matches(self._include, variables, "include_in_weight_decay")
        super().build(variables)
        self._decays = [
            bool(self.decoupled_decay)
            and (self._include is None or matches_any(path_of(v), self._include))
            for v in variables
        ]
        self._axes = [self.factored_axes(tuple(v.shape)) for v in variables]
        self._rows, self._columns, self._velocities = [], [], []
        for variable, axes in zip(variables, self._axes, strict=True):
            shape = tuple(variable.shape)
            d0, d1 = axes or (None, None)
            whole = shape if axes is None else None
            self._rows.append(self._moment(variable, _without(shape, d0), "row"))
            self._columns.append(self._moment(variable, _without(shape, d1), "column"))
            self._velocities.append(self._moment(variable, whole, "velocity"))
        if self.beta1 is not None:
            self._momentums = self.add_optimizer_variables(variables, "momentum")

    def factored_axes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Returns (d0, d1), the largest and second largest axis, or None if not factored.

        Among axes of equal size the last counts as the larger, as in Flax and optax.
        """
        if not self.factored or len(shape) < 2:
            return None
        *_, d1, d0 = np.argsort(shape, kind="stable").tolist()
        return (d0, d1) if shape[d1] >= self.min_dim_size_to_factor else None

    def _moment(
        self, variable: Any, shape: tuple[int, ...] | None, name: str
    ) -> keras.Variable | None:
        if shape is None or self._overwrite_variable_with_gradient(variable):
            return None
        path = path_of(variable).replace("/", "_")
        return self.add_variable(shape, dtype=compute_dtype(variable), name=f"{path}_{name}")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its moments."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        w = ops.cast(variable, dtype)
        g = as_dense(gradient, dtype)
        update = self._normalized(index, g)
        if self.clipping_threshold is not None:
            update = update / ops.maximum(root_mean_square(update) / self.clipping_threshold, 1.0)
        update = ops.cast(learning_rate, dtype) * update
        if self.multiply_by_parameter_scale:
            update = update * ops.maximum(root_mean_square(w), self.epsilon2)
        if self.beta1 is not None:
            momentum = self._momentums[index]
            self.assign(momentum, self.beta1 * momentum + (1 - self.beta1) * update)
            update = ops.convert_to_tensor(momentum)
        if self._decays[index]:
            update = update + self.decoupled_decay * w
        self.assign_sub(variable, ops.cast(update, variable.dtype))

    def _normalized(self, index: int, g: Any) -> Any:
        """Returns g / sqrt(V), with V factored or whole; updates the moments."""
        t = ops.maximum(ops.cast(self.iterations + 1 - self.step_offset, g.dtype), 1.0)
        new_share = t**-self.decay_rate
        squared = ops.square(g) + self.epsilon1

        def average(moment: keras.Variable, new_value: Any) -> Any:
            self.assign(moment, (1 - new_share) * moment + new_share * new_value)
            return ops.convert_to_tensor(moment)

        if self._axes[index] is None:
            return g * ops.rsqrt(average(self._velocities[index], squared))
        d0, d1 = self._axes[index]
        rows = average(self._rows[index], ops.mean(squared, axis=d0))
        columns = average(self._columns[index], ops.mean(squared, axis=d1))
        # R has lost axis d0, so d1 may have moved down by one.
        mean_of_rows = ops.mean(rows, axis=d1 - (d1 > d0), keepdims=True)
        row_factor = ops.expand_dims(ops.rsqrt(rows / mean_of_rows), d0)
        return g * row_factor * ops.expand_dims(ops.rsqrt(columns), d1)

    def is_decayed(self, variable: Any) -> bool:
        """Says whether weight decay acts on a variable."""
        return self._decays[self._get_variable_index(variable)]

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "factored": self.factored,
            "multiply_by_parameter_scale": self.multiply_by_parameter_scale,
            "beta1": self.beta1,
            "decay_rate": self.decay_rate,
            "step_offset": self.step_offset,
            "clipping_threshold": self.clipping_threshold,
            "min_dim_size_to_factor": self.min_dim_size_to_factor,
            "epsilon1": self.epsilon1,
            "epsilon2": self.epsilon2,
            "weight_decay": self.decoupled_decay,
            "include_in_weight_decay": self._include,
        }


def _without(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...] | None:
    return None if axis is None else shape[:axis] + shape[axis + 1 :]
