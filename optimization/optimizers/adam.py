"""Adam, in each of the forms that its implementations have."""

from typing import Any, Literal

import keras
from keras import ops

from optimization.optimizers.slots import Float32Slots, as_dense, bias_correction, compute_dtype

_PLACEMENTS = ("uncorrected", "corrected")


@keras.saving.register_keras_serializable(package="optimization")
class Adam(Float32Slots, keras.optimizers.Adam):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), with a choice of where epsilon stands.

    With t = iterations + 1, g the gradient, c1 = 1 - beta_1^t and c2 = 1 - beta_2^t:

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon)    "uncorrected"
        w <- w - lr * (m / c1) / (sqrt(v / c2) + epsilon)        "corrected"

    "uncorrected" is the form at the end of the paper's section 2, of Keras, TensorFlow and
    transformers; "corrected" is the paper's algorithm 1, of PyTorch and optax. They are one formula
    with epsilon and epsilon * sqrt(c2). Without bias correction c1 = c2 = 1, as BERT was trained.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step.
        beta_1: Decay of the first moment, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the second moment.
        amsgrad: Use the largest v so far, before its correction (Reddi et al. 2018).
        weight_decay: Before each update, w -= learning_rate * weight_decay * w. None for none.
        correct_bias: Whether the moments are corrected for their start from zero.
        epsilon_placement: "uncorrected" or "corrected": the root to which epsilon is added.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For another placement, or for "corrected" where nothing is corrected.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        correct_bias: bool = True,
        epsilon_placement: Literal["uncorrected", "corrected"] = "uncorrected",
        name: str = "adam",
        **kwargs: Any,
    ):
        if epsilon_placement not in _PLACEMENTS:
            raise ValueError(
                f"Argument `epsilon_placement` must be one of {_PLACEMENTS}, "
                f"received: epsilon_placement={epsilon_placement!r}"
            )
        if epsilon_placement == "corrected" and not correct_bias:
            raise ValueError(
                "Argument `epsilon_placement` must be 'uncorrected' where `correct_bias` is False."
            )
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
        self.correct_bias = correct_bias
        self.epsilon_placement = epsilon_placement

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its moments."""
        step = self._step_of(gradient, variable, learning_rate)
        self.assign_sub(variable, ops.cast(step, variable.dtype))

    def _step_of(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
        """Updates a variable's moments; returns what is to be subtracted from it."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        lr = ops.cast(learning_rate, dtype)
        g = as_dense(gradient, dtype)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (g - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(g) - v) * (1 - self.beta_2))
        if self.amsgrad:
            v_hat = self._velocity_hats[index]
            self.assign(v_hat, ops.maximum(v_hat, v))
            v = v_hat
        epsilon = self.epsilon
        if not self.correct_bias:
            return lr * m / (ops.sqrt(v) + epsilon)
        t = ops.cast(self.iterations + 1, dtype)
        root = ops.sqrt(bias_correction(self.beta_2, t))
        if self.epsilon_placement == "corrected":
            epsilon = epsilon * root
        correction = root / bias_correction(self.beta_1, t)
        return lr * correction * m / (ops.sqrt(v) + epsilon)

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "correct_bias": self.correct_bias,
            "epsilon_placement": self.epsilon_placement,
        }
