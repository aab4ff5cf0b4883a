"""Schedule-free SGD and AdamW: averages in the place of a learning rate schedule."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from optimization.optimizers.slots import Float32Slots, as_dense, bias_correction, compute_dtype


class ScheduleFree(Float32Slots):
    """Mixin for a Keras optimizer: the sequences x, y and z of Defazio et al. 2024.

    With beta the interpolation, u the direction of the step, t = iterations + 1:

        rate = lr * min(1, t / warmup_steps)
        weight = t^r * (largest rate so far)^weight_lr_power
        c = weight / (sum of the weights so far)
        z <- z - rate * u(gradient at y)
        x <- (1 - c) x + c z
        y <- (1 - beta) z + beta x

    The variables hold y, where gradients are taken. Beside it d = z - x is kept, which is 0 at the
    start, whatever the weights are and whenever a variable has its first gradient:

        y <- y + c beta d - rate (1 - beta (1 - c)) u
        d <- (1 - c) (d - rate u)

    x, which is to be evaluated, is y - (1 - beta) d.

    The sum is kept in units of the last weight, which float32 counts without rounding while the
    weights are equal.
    """

    decay_at_y: float
    warmup_steps: int
    r: float
    weight_lr_power: float

    @property
    def interpolation(self) -> float:
        """The share beta of x in y."""
        raise NotImplementedError

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates z - x and what the weights of the average are computed from."""
        if self.built:
            return
        super().build(variables)
        self._distances = self.add_optimizer_variables(variables, "distance")
        self._largest_rate = self.add_variable((), dtype="float32", name="largest_rate")
        self._sum_of_weights = self.add_variable((), dtype="float32", name="sum_of_weights")

    def _rate(self, learning_rate: Any) -> Any:
        """Returns the learning rate of this step, warmed up, a float32 scalar."""
        rate = ops.cast(learning_rate, "float32")
        if not self.warmup_steps:
            return rate
        t = ops.cast(self.iterations + 1, "float32")
        return rate * ops.minimum(t / self.warmup_steps, 1.0)

    def _backend_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        self._weigh(self._rate(learning_rate))
        super()._backend_update_step(grads, variables, learning_rate)

    def _weigh(self, rate: Any) -> None:
        """Brings the sum of the weights up to date, once in a step."""
        before = ops.convert_to_tensor(self._largest_rate)
        now = ops.maximum(before, rate)
        t = ops.cast(self.iterations + 1, "float32")
        some = ops.where(now > 0, now, 1.0)
        # The last step's weight over this one's.
        ratio = ops.power((t - 1) / t, self.r) * ops.power(before / some, self.weight_lr_power)
        total = ops.convert_to_tensor(self._sum_of_weights) * ratio + 1
        if self.weight_lr_power:  # without a rate so far, all weights were 0
            total = ops.where(now > 0, total, 0.0)
        self.assign(self._largest_rate, now)
        self.assign(self._sum_of_weights, total)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable, y, and its z - x."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        y = ops.cast(variable, dtype)
        distance = self._distances[index]
        u = self._direction(as_dense(gradient, dtype), index)
        if self.decay_at_y:
            u = u + self.decay_at_y * y
        rate = ops.cast(self._rate(learning_rate), dtype)
        total = ops.cast(self._sum_of_weights, dtype)
        c = ops.where(total > 0, 1 / ops.maximum(total, 1.0), 0.0)
        beta = self.interpolation
        step = c * beta * distance - rate * (1 - beta * (1 - c)) * u
        self.assign(distance, (1 - c) * (distance - rate * u))
        self.assign_add(variable, ops.cast(step, variable.dtype))

    def _direction(self, gradient: Any, index: int) -> Any:
        """Returns u, without weight decay."""
        raise NotImplementedError

    def to_evaluate(self, y: Any, variable: Any) -> Any:
        """Returns x, given y; before the first gradient it is y.

        Args:
            y: A tensor, what the variable holds while it trains.
            variable: A variable that this optimizer updates.
        """
        return y - self._from_x_to_y(variable, y.dtype)

    def to_train(self, x: Any, variable: Any) -> Any:
        """Returns y, given x: the inverse of `to_evaluate`, but for rounding."""
        return x + self._from_x_to_y(variable, x.dtype)

    def _from_x_to_y(self, variable: Any, dtype: Any) -> Any:
        distance = self._distances[self._get_variable_index(variable)]
        return (1 - self.interpolation) * ops.cast(distance, dtype)

    def is_decayed(self, variable: Any) -> bool:
        """Says whether weight decay acts on a variable."""
        del variable
        return bool(self.decay_at_y)

    def _set(self, weight_decay: float, warmup_steps: int, r: float, weight_lr_power: float):
        if not 0 < self.interpolation < 1:
            raise ValueError(
                "Argument `momentum`, or `beta_1`, must be in (0, 1), "
                f"received: {self.interpolation}"
            )
        for name, value in (("warmup_steps", warmup_steps), ("weight_lr_power", weight_lr_power)):
            if value < 0:
                raise ValueError(f"Argument `{name}` must be >= 0, received: {name}={value}")
        if r < 0:
            raise ValueError(f"Argument `r` must be >= 0, received: {r=}")
        # Not Keras' own attribute, which would decay before the step.
        self.decay_at_y = weight_decay
        self.warmup_steps = warmup_steps
        self.r = r
        self.weight_lr_power = weight_lr_power

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "weight_decay": self.decay_at_y,
            "warmup_steps": self.warmup_steps,
            "r": self.r,
            "weight_lr_power": self.weight_lr_power,
        }


@keras.saving.register_keras_serializable(package="optimization")
class ScheduleFreeSGD(ScheduleFree, keras.optimizers.Optimizer):
    """Schedule-free SGD (Defazio et al. 2024, arXiv:2405.15682).

        u = g + weight_decay * y

    in the equations of `ScheduleFree`. Within a `PipelineOptimizer` the model evaluates, saves and
    exports x as it does other averages. The learning rate is a constant, with `warmup_steps` of its
    own; one that falls only adds to what the averages do.

    Statistics of batch normalization are those of y while it trains: for an evaluation with x run
    some batches of training data through the model first, as the authors advise.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step. About 10 times
            that of SGD with momentum is a start.
        momentum: The share of x in y, in (0, 1).
        weight_decay: See above; 0 turns it off.
        warmup_steps: Optimizer steps in which the rate grows linearly, to lr at the last of them.
        r: Power of the step in the weights of the average, >= 0.
        weight_lr_power: Power of the largest rate so far in them, >= 0.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For a value out of its range.
    """

    argument_attributes: ClassVar[dict[str, str]] = {"weight_decay": "decay_at_y"}

    def __init__(
        self,
        learning_rate: Any = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        name: str = "ScheduleFreeSGD",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self._set(weight_decay or 0.0, warmup_steps, r, weight_lr_power)

    @property
    def interpolation(self) -> float:
        """The share of x in y."""
        return self.momentum

    def _direction(self, gradient: Any, index: int) -> Any:
        del index
        return gradient

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="optimization")
class ScheduleFreeAdamW(ScheduleFree, keras.optimizers.Optimizer):
    """Schedule-free AdamW (Defazio et al. 2024, arXiv:2405.15682).

        v <- beta_2 v + (1 - beta_2) g^2
        u = g / (sqrt(v / (1 - beta_2^t)) + epsilon) + weight_decay * y

    in the equations of `ScheduleFree`; what `ScheduleFreeSGD` says of evaluation and of batch
    normalization holds here too.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step.
        beta_1: The share of x in y, in (0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the corrected second moment.
        weight_decay: See above; 0 turns it off.
        warmup_steps: Optimizer steps in which the rate grows linearly, to lr at the last of them.
        r: Power of the step in the weights of the average, >= 0.
        weight_lr_power: Power of the largest rate so far in them, >= 0.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For a value out of its range.
    """

    argument_attributes: ClassVar[dict[str, str]] = {"weight_decay": "decay_at_y"}

    def __init__(
        self,
        learning_rate: Any = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        name: str = "ScheduleFreeAdamW",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._set(weight_decay or 0.0, warmup_steps, r, weight_lr_power)

    @property
    def interpolation(self) -> float:
        """The share of x in y."""
        return self.beta_1

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates z - x, the second moments, and what the average's weights are computed from."""
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")

    def _direction(self, gradient: Any, index: int) -> Any:
        v = self._velocities[index]
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))
        t = ops.cast(self.iterations + 1, v.dtype)
        return gradient / (ops.sqrt(v / bias_correction(self.beta_2, t)) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }
