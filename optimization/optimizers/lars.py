"""LARS: momentum SGD, each layer's rate in proportion to its weights' norm."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from optimization.optimizers.layerwise import DecaysByPath, Exclusions, trust_ratio
from optimization.optimizers.slots import Float32Slots, as_dense, compute_dtype
from optimization.optimizers.stages import Length, SquareSum, Staged, Stages


@keras.saving.register_keras_serializable(package="optimization")
class LARS(Staged, DecaysByPath, Float32Slots, keras.optimizers.Optimizer):
    """LARS (You et al. 2017, arXiv:1708.03888).

    With g <- g + weight_decay_rate * w where the variable decays, mu the momentum and
    ratio(x) = eeta * |w| / |x| (1 where a norm is 0), classic momentum is

        v <- mu * v + lr * ratio(g) * g
        w <- w - v                                   (nesterov: mu * v + lr * ratio(g) * g)

    and the popular form (`classic_momentum=False`) keeps the rate out of the buffer:

        v <- mu * v + g
        u = v                                        (nesterov: mu * v + g)
        w <- w - lr * ratio(u) * u

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the step.
        momentum: mu, in [0, 1).
        eeta: The trust coefficient of the paper.
        weight_decay_rate: Rate of the decay added to the gradient; 0 turns it off.
        nesterov: Look one momentum step ahead; needs a momentum > 0.
        classic_momentum: Apply the rate before (True) or after (False) the momentum.
        exclude_from_weight_decay: Regular expressions searched in the full path.
        exclude_from_layer_adaptation: Variables whose ratio stays 1. None: the same as
            `exclude_from_weight_decay`; an empty list: none (TensorFlow Model Garden takes an
            empty list for None).
        weight_decay: Before each update, w -= learning_rate * weight_decay * w, where
            `exclude_from_weight_decay` spares nothing. None for none.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For nesterov without momentum or an invalid regular expression; at build, for
            expressions of which none matches a variable.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.9,
        eeta: float = 0.001,
        weight_decay_rate: float = 0.0,
        nesterov: bool = False,
        classic_momentum: bool = True,
        exclude_from_weight_decay: Sequence[str] | str | None = None,
        exclude_from_layer_adaptation: Sequence[str] | str | None = None,
        weight_decay: float | None = None,
        name: str = "LARS",
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        if nesterov and not momentum:
            raise ValueError(
                f"Argument `nesterov` needs a momentum > 0, received: momentum={momentum}"
            )
        self.momentum = momentum
        self.eeta = eeta
        self.weight_decay_rate = weight_decay_rate
        self.nesterov = nesterov
        self.classic_momentum = classic_momentum
        self._exclusions = Exclusions(exclude_from_weight_decay, exclude_from_layer_adaptation)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the momentum buffers and decides which variables decay and adapt."""
        if self.built:
            return
        self._decays, self._adapts = self._exclusions.flags(variables)
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_stages(self, gradient: Any, variable: Any, learning_rate: Any) -> Stages:
        """Updates one variable and its momentum."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        ratio = 1.0
        buffer = self._momentums[index]
        if self.classic_momentum:
            if self._adapts[index]:
                decayed = self._decayed(index, gradient, variable)
                of = decayed if self._decays[index] and self.weight_decay_rate else gradient
                _, (square, norm) = yield (), [SquareSum(variable), Length(of)]
                ratio = trust_ratio(ops.sqrt(square), norm, self.eeta)
            scaled = ops.cast(learning_rate, dtype) * ratio
            scaled = scaled * self._decayed(index, gradient, variable)
            self.assign(buffer, self.momentum * buffer + scaled)
            step = self._ahead(buffer, scaled)
        else:
            decayed = self._decayed(index, gradient, variable)
            self.assign(buffer, self.momentum * buffer + decayed)
            if self._adapts[index]:
                of = self._ahead(buffer, decayed) if self.nesterov else buffer
                _, (square, norm) = yield (), [SquareSum(variable), Length(of)]
                ratio = trust_ratio(ops.sqrt(square), norm, self.eeta)
            # Computed twice, so that a fused update need not keep it.
            update = self._ahead(buffer, self._decayed(index, gradient, variable))
            step = ops.cast(learning_rate, dtype) * ratio * update
        self.assign_sub(variable, ops.cast(step, variable.dtype))

    def _decayed(self, index: int, gradient: Any, variable: Any) -> Any:
        dtype = compute_dtype(variable)
        g = as_dense(gradient, dtype)
        if self._decays[index] and self.weight_decay_rate:
            g = g + self.weight_decay_rate * ops.cast(variable, dtype)
        return g

    def _ahead(self, buffer: Any, value: Any) -> Any:
        """Returns the momentum, one step ahead if `nesterov`."""
        if self.nesterov:
            return self.momentum * buffer + value
        return ops.convert_to_tensor(buffer)

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "eeta": self.eeta,
            "weight_decay_rate": self.weight_decay_rate,
            "nesterov": self.nesterov,
            "classic_momentum": self.classic_momentum,
            **self._exclusions.get_config(),
        }
