"""Nadam, with the speed at which its momentum grows."""

from typing import Any

import keras
from keras import ops

from optimization.optimizers.slots import Float32Slots, as_dense, bias_correction, compute_dtype


@keras.saving.register_keras_serializable(package="optimization")
class Nadam(Float32Slots, keras.optimizers.Nadam):
    """Nadam, Adam with Nesterov momentum (Dozat 2015).

    With t = iterations + 1, g the gradient and mu_t = beta_1 (1 - 0.96^(t momentum_decay) / 2):

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        m_hat = mu_(t+1) m / (1 - mu_1 ... mu_(t+1)) + (1 - mu_t) g / (1 - mu_1 ... mu_t)
        w <- w - lr * m_hat / (sqrt(v / (1 - beta_2^t)) + epsilon)

    Keras' form has `momentum_decay` 1; in PyTorch's it is 0.004 unless set otherwise.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step.
        beta_1: Decay of the momentum, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the second moment.
        weight_decay: Before each update, w -= learning_rate * weight_decay * w. None for none.
        momentum_decay: How fast mu grows from about beta_1 / 2 to beta_1, >= 0.
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
        momentum_decay: float = 1.0,
        name: str = "nadam",
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
        self.momentum_decay = momentum_decay

    def _mu(self, t: Any) -> Any:
        return self.beta_1 * (1 - 0.5 * ops.power(0.96, self.momentum_decay * t))

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        t = ops.cast(self.iterations + 1, self._u_product.dtype)
        self.assign(self._u_product, self._u_product * self._mu(t))
        # Past Keras' own, which multiplies too.
        super(keras.optimizers.Nadam, self)._backend_update_step(
            grads, trainable_variables, learning_rate
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its moments."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        g = as_dense(gradient, dtype)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (g - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(g) - v) * (1 - self.beta_2))
        t = ops.cast(self.iterations + 1, dtype)
        now, following = self._mu(t), self._mu(t + 1)
        product = ops.cast(self._u_product, dtype)
        m_hat = following * m / (1 - product * following) + (1 - now) * g / (1 - product)
        v_hat = v / bias_correction(self.beta_2, t)
        step = ops.cast(learning_rate, dtype) * m_hat / (ops.sqrt(v_hat) + self.epsilon)
        self.assign_sub(variable, ops.cast(step, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {**super().get_config(), "momentum_decay": self.momentum_decay}
