"""Adagrad, in Keras' form and in PyTorch's."""

from typing import Any

import keras
from keras import ops

from optimization.optimizers.slots import Float32Slots, as_dense, compute_dtype


@keras.saving.register_keras_serializable(package="optimization")
class Adagrad(Float32Slots, keras.optimizers.Adagrad):
    """Adagrad (Duchi et al. 2011), with a choice of where epsilon stands.

    With g the gradient:

        s <- s + g^2
        w <- w - lr * g / sqrt(s + epsilon)      epsilon_in_sqrt, as Keras and TensorFlow
        w <- w - lr * g / (sqrt(s) + epsilon)    otherwise, as PyTorch

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step.
        initial_accumulator_value: What s starts from. PyTorch starts it from 0.
        epsilon: Added to the sum of squares, or to its root.
        weight_decay: Before each update, w -= learning_rate * weight_decay * w. None for none.
        epsilon_in_sqrt: Whether epsilon is added below the root.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        epsilon_in_sqrt: bool = True,
        name: str = "adagrad",
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate,
            initial_accumulator_value=initial_accumulator_value,
            epsilon=epsilon,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
        self.epsilon_in_sqrt = epsilon_in_sqrt

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its sum of squares."""
        dtype = compute_dtype(variable)
        g = as_dense(gradient, dtype)
        s = self._accumulators[self._get_variable_index(variable)]
        self.assign_add(s, ops.square(g))
        root = ops.sqrt(s + self.epsilon) if self.epsilon_in_sqrt else ops.sqrt(s) + self.epsilon
        step = ops.cast(learning_rate, dtype) * g / root
        self.assign_sub(variable, ops.cast(step, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {**super().get_config(), "epsilon_in_sqrt": self.epsilon_in_sqrt}
