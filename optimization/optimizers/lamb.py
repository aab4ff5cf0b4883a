"""LAMB: Adam's direction, each layer's step in proportion to its weights' norm."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from optimization.optimizers.layerwise import DecaysByPath, Exclusions, trust_ratio
from optimization.optimizers.slots import Float32Slots, as_dense, bias_correction, compute_dtype
from optimization.optimizers.stages import SquareSum, Staged, Stages


@keras.saving.register_keras_serializable(package="optimization")
class LAMB(Staged, DecaysByPath, Float32Slots, keras.optimizers.Optimizer):
    """LAMB (You et al. 2020, arXiv:1904.00962).

    With bias-corrected moments m^ and v^ of the gradient:

        u = m^ / (sqrt(v^) + epsilon) + weight_decay_rate * w
        w <- w - lr * |w| / |u| * u                  (ratio 1 where a norm is 0)

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the step.
        beta_1: Decay of the first moment, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the corrected second moment.
        weight_decay_rate: Rate of the decay inside u; 0 turns it off.
        exclude_from_weight_decay: Regular expressions searched in the full path.
        exclude_from_layer_adaptation: Variables whose ratio stays 1. None: the same as
            `exclude_from_weight_decay`; an empty list: none (TensorFlow Model Garden takes an
            empty list for None).
        weight_decay: Before each update, w -= learning_rate * weight_decay * w, where
            `exclude_from_weight_decay` spares nothing. None for none.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For an invalid regular expression; at build, for expressions of
            which none matches a variable.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay_rate: float = 0.0,
        exclude_from_weight_decay: Sequence[str] | str | None = None,
        exclude_from_layer_adaptation: Sequence[str] | str | None = None,
        weight_decay: float | None = None,
        name: str = "LAMB",
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.weight_decay_rate = weight_decay_rate
        self._exclusions = Exclusions(exclude_from_weight_decay, exclude_from_layer_adaptation)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the moments and decides which variables decay and adapt."""
        if self.built:
            return
        self._decays, self._adapts = self._exclusions.flags(variables)
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )

    def update_stages(self, gradient: Any, variable: Any, learning_rate: Any) -> Stages:
        """Updates one variable and its moments."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        g = as_dense(gradient, dtype)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (g - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(g) - v) * (1 - self.beta_2))
        ratio = 1.0
        if self._adapts[index]:
            # Computed twice, so that a fused update need not keep it.
            squares = [SquareSum(variable), SquareSum(self._direction(index, variable))]
            _, squares = yield (), squares
            ratio = trust_ratio(*(ops.sqrt(square) for square in squares))
        step = ops.cast(learning_rate, dtype) * ratio * self._direction(index, variable)
        self.assign_sub(variable, ops.cast(step, variable.dtype))

    def _direction(self, index: int, variable: Any) -> Any:
        """Returns u of the moments as they are."""
        dtype = compute_dtype(variable)
        t = ops.cast(self.iterations + 1, dtype)
        m_hat = self._momentums[index] / bias_correction(self.beta_1, t)
        v_hat = self._velocities[index] / bias_correction(self.beta_2, t)
        u = m_hat / (ops.sqrt(v_hat) + self.epsilon)
        if self._decays[index] and self.weight_decay_rate:
            u = u + self.weight_decay_rate * ops.cast(variable, dtype)
        return u

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "weight_decay_rate": self.weight_decay_rate,
            **self._exclusions.get_config(),
        }
