"""Adamax, in Keras' form and in PyTorch's."""

from typing import Any

import keras
from keras import ops

from optimization.optimizers.slots import Float32Slots, as_dense, bias_correction, compute_dtype


@keras.saving.register_keras_serializable(package="optimization")
class Adamax(Float32Slots, keras.optimizers.Adamax):
    """Adamax (Kingma and Ba 2015, arXiv:1412.6980), with a choice of where epsilon stands.

    With t = iterations + 1 and g the gradient:

        m <- beta_1 m + (1 - beta_1) g
        u <- max(beta_2 u, |g|);            w <- w - lr / (1 - beta_1^t) * m / (u + epsilon)
        u <- max(beta_2 u, |g| + epsilon);  w <- w - lr / (1 - beta_1^t) * m / u

    The first is Keras' and TensorFlow's, the second, `epsilon_in_norm`, PyTorch's: there epsilon
    fades where gradients become smaller.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step.
        beta_1: Decay of the momentum, in [0, 1).
        beta_2: Decay of the norm, in [0, 1).
        epsilon: Added to the norm, or to the gradient's part in it.
        weight_decay: Before each update, w -= learning_rate * weight_decay * w. None for none.
        epsilon_in_norm: Whether epsilon is added to |g|.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        epsilon_in_norm: bool = False,
        name: str = "adamax",
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
        self.epsilon_in_norm = epsilon_in_norm

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable, its momentum and its norm."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        g = as_dense(gradient, dtype)
        m, u = self._m[index], self._u[index]
        inside, outside = (self.epsilon, 0) if self.epsilon_in_norm else (0, self.epsilon)
        self.assign_add(m, (g - m) * (1 - self.beta_1))
        self.assign(u, ops.maximum(self.beta_2 * u, ops.abs(g) + inside))
        t = ops.cast(self.iterations + 1, dtype)
        lr = ops.cast(learning_rate, dtype) / bias_correction(self.beta_1, t)
        self.assign_sub(variable, ops.cast(lr * m / (u + outside), variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {**super().get_config(), "epsilon_in_norm": self.epsilon_in_norm}
