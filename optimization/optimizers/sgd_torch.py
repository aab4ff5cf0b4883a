"""SGD as PyTorch computes it, with the groups and the momentum warmup of YOLO training."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from optimization.optimizers.paths import path_of
from optimization.optimizers.patterns import as_pattern_list, matches_any, require_matches
from optimization.optimizers.slots import Float32Slots, as_dense, compute_dtype

_WEIGHT, _BIAS, _OTHER = "weight", "bias", "other"
_WEIGHT_KEYS, _BIAS_KEYS = ("kernel", "weight"), ("bias", "beta")


@keras.saving.register_keras_serializable(package="optimization")
class SGDTorch(Float32Slots, keras.optimizers.Optimizer):
    """PyTorch's SGD: the rate stays out of the momentum buffer, weight decay is in the gradient.

        g <- g + weight_decay * w                    (weights only)
        buffer <- mu * buffer + g
        w <- w - lr * buffer                         (nesterov: lr * (g + mu * buffer))

    A variable is a weight if one of `weight_keys` is found in its path, else a bias if one of
    `bias_keys` is, else it belongs to the others. The keys by default may match nothing, since they
    describe many models at once.

    At step s, mu grows linearly from `momentum_start` at s = 0 to `momentum` at s = `warmup_steps`
    and stays there; with `warmup_steps=0` it is `momentum` from the start. PyTorch itself knows
    neither the warmup nor the groups by name; both come from YOLO in TensorFlow Model Garden,
    which divides by zero at `warmup_steps=0`.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the step.
        momentum: mu after warmup, in [0, 1]; 0 with `momentum_start=0` is plain SGD.
        momentum_start: mu at step 0, if `warmup_steps` > 0.
        warmup_steps: Length of the momentum warmup in optimizer steps.
        nesterov: Look one momentum step ahead; needs a momentum > 0.
        weight_decay: Added to the gradient of weights as `weight_decay * w`.
        weight_keys: Regular expressions searched in the full path.
        bias_keys: Regular expressions searched in the full path.
        bias_learning_rate: Rate of biases, a float or a schedule; None: `learning_rate`.
        other_learning_rate: Rate of the others, a float or a schedule; None: `learning_rate`.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For a momentum outside [0, 1], `warmup_steps` < 0, nesterov without momentum or
            an invalid regular expression; at build, for keys of which none matches a variable.
    """

    argument_attributes: ClassVar[dict[str, str]] = {"weight_decay": "gradient_decay"}

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.9,
        momentum_start: float = 0.0,
        warmup_steps: int = 0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        weight_keys: Sequence[str] | str | None = _WEIGHT_KEYS,
        bias_keys: Sequence[str] | str | None = _BIAS_KEYS,
        bias_learning_rate: Any = None,
        other_learning_rate: Any = None,
        name: str = "SGDTorch",
        **kwargs: Any,
    ):
        # The base class would decay every variable, outside the gradient: its argument stays unset.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        # On the rates of biases and others; `learning_rate` has it already.
        self.rate_multiplier = 1.0
        _check_momentum(momentum, momentum_start, warmup_steps, nesterov)
        self.momentum = momentum
        self.momentum_start = momentum_start
        self.warmup_steps = warmup_steps
        self.nesterov = nesterov
        self.gradient_decay = weight_decay
        self._weight_keys = as_pattern_list(weight_keys, "weight_keys")
        self._bias_keys = as_pattern_list(bias_keys, "bias_keys")
        self.bias_learning_rate = bias_learning_rate
        self.other_learning_rate = other_learning_rate

    @property
    def _has_buffers(self) -> bool:
        return self.momentum > 0 or (self.warmup_steps > 0 and self.momentum_start > 0)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the momentum buffers and sorts the variables into groups."""
        if self.built:
            return
        given = {"weight_keys": self._weight_keys, "bias_keys": self._bias_keys}
        for argument, keys in given.items():
            if tuple(keys or ()) not in (_WEIGHT_KEYS, _BIAS_KEYS):
                require_matches(keys, variables, argument)
        self._groups = [self.group_of(path_of(variable)) for variable in variables]
        super().build(variables)
        if self._has_buffers:
            self._momentums = self.add_optimizer_variables(variables, "momentum")

    def group_of(self, path: str) -> str:
        """Returns 'weight', 'bias' or 'other' for a variable's path; weights are searched first."""
        if matches_any(path, self._weight_keys):
            return _WEIGHT
        return _BIAS if matches_any(path, self._bias_keys) else _OTHER

    def current_momentum(self) -> Any:
        """Returns mu at the present step, a float32 scalar."""
        if not self.warmup_steps:
            return ops.cast(self.momentum, "float32")
        step = ops.cast(self.iterations, "float32")
        progress = ops.minimum(step / self.warmup_steps, 1.0)
        return self.momentum_start + (self.momentum - self.momentum_start) * progress

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its momentum buffer."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        group = self._groups[index]
        update = as_dense(gradient, dtype)
        if group == _WEIGHT and self.gradient_decay:
            update = update + self.gradient_decay * ops.cast(variable, dtype)
        if self._has_buffers:
            mu = ops.cast(self.current_momentum(), dtype)
            buffer = self._momentums[index]
            self.assign(buffer, mu * buffer + update)
            update = update + mu * buffer if self.nesterov else ops.convert_to_tensor(buffer)
        lr = ops.cast(self._group_rate(group, learning_rate), dtype)
        self.assign_sub(variable, ops.cast(lr * update, variable.dtype))

    def _group_rate(self, group: str, learning_rate: Any) -> Any:
        rates = {_BIAS: self.bias_learning_rate, _OTHER: self.other_learning_rate}
        rate = rates.get(group)
        if rate is None:
            return learning_rate
        return (rate(self.iterations) if callable(rate) else rate) * self.rate_multiplier

    def is_decayed(self, variable: Any) -> bool:
        """Says whether weight decay acts on a variable."""
        group = self._groups[self._get_variable_index(variable)]
        return group == _WEIGHT and bool(self.gradient_decay)

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "momentum_start": self.momentum_start,
            "warmup_steps": self.warmup_steps,
            "nesterov": self.nesterov,
            "weight_decay": self.gradient_decay,
            "weight_keys": self._weight_keys,
            "bias_keys": self._bias_keys,
            "bias_learning_rate": _serialized_rate(self.bias_learning_rate),
            "other_learning_rate": _serialized_rate(self.other_learning_rate),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "SGDTorch":
        """Rebuilds the optimizer, its schedules included."""
        config = dict(config)
        for key in ("bias_learning_rate", "other_learning_rate"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        return super().from_config(config, custom_objects=custom_objects)


def _serialized_rate(rate: Any) -> Any:
    return keras.saving.serialize_keras_object(rate) if callable(rate) else rate


def _check_momentum(
    momentum: float, momentum_start: float, warmup_steps: int, nesterov: bool
) -> None:
    for name, value in (("momentum", momentum), ("momentum_start", momentum_start)):
        if not 0 <= value <= 1:
            raise ValueError(f"Argument `{name}` must be in [0, 1], received: {name}={value}")
    if warmup_steps < 0:
        raise ValueError(
            f"Argument `warmup_steps` must be >= 0, received: warmup_steps={warmup_steps}"
        )
    if nesterov and not momentum:
        raise ValueError(f"Argument `nesterov` needs a momentum > 0, received: momentum={momentum}")
