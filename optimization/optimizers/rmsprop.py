"""RMSprop, in Keras' form and in PyTorch's."""

from typing import Any

import keras
from keras import ops

from optimization.optimizers.slots import Float32Slots, as_dense, compute_dtype


@keras.saving.register_keras_serializable(package="optimization")
class RMSprop(Float32Slots, keras.optimizers.RMSprop):
    """RMSprop (Tieleman and Hinton 2012), with a choice of where epsilon and the rate stand.

    With g the gradient:

        v <- rho v + (1 - rho) g^2
        a <- rho a + (1 - rho) g                         if centered, else a = 0
        u = g / sqrt(v - a^2 + epsilon)                  epsilon_in_sqrt, as Keras and TensorFlow
        u = g / (sqrt(max(v - a^2, 0)) + epsilon)        otherwise, as PyTorch
        m <- momentum m + lr u;  w <- w - m              classic_momentum, as Keras and TensorFlow
        m <- momentum m + u;     w <- w - lr m           otherwise, as PyTorch

    The two momenta are the same under a constant rate. PyTorch has no max(..., 0): where rounding
    makes v - a^2 negative, its weight becomes NaN.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step.
        rho: Decay of the averages, in [0, 1).
        momentum: In [0, 1); 0 for none.
        epsilon: Added to the mean of squares, or to its root.
        centered: Whether the mean of squares is that around the mean gradient.
        weight_decay: Before each update, w -= learning_rate * weight_decay * w. None for none.
        epsilon_in_sqrt: Whether epsilon is added below the root.
        classic_momentum: Whether the momentum is of lr * u, not of u.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        epsilon_in_sqrt: bool = True,
        classic_momentum: bool = True,
        name: str = "rmsprop",
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate,
            rho=rho,
            momentum=momentum,
            epsilon=epsilon,
            centered=centered,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
        self.epsilon_in_sqrt = epsilon_in_sqrt
        self.classic_momentum = classic_momentum

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its averages."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        lr = ops.cast(learning_rate, dtype)
        g = as_dense(gradient, dtype)
        v = self._velocities[index]
        self.assign(v, self.rho * v + (1 - self.rho) * ops.square(g))
        spread = v
        if self.centered:
            mean = self._average_gradients[index]
            self.assign(mean, self.rho * mean + (1 - self.rho) * g)
            spread = v - ops.square(mean)
        if self.epsilon_in_sqrt:
            u = g / ops.sqrt(spread + self.epsilon)
        else:
            u = g / (ops.sqrt(ops.maximum(spread, 0)) + self.epsilon)
        if self.momentum == 0:
            step = lr * u
        else:
            m = self._momentums[index]
            self.assign(m, self.momentum * m + (lr * u if self.classic_momentum else u))
            step = ops.convert_to_tensor(m) if self.classic_momentum else lr * m
        self.assign_sub(variable, ops.cast(step, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "epsilon_in_sqrt": self.epsilon_in_sqrt,
            "classic_momentum": self.classic_momentum,
        }
