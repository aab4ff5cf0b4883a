"""Adam as BERT trains with it: weight decay by name, before or after the step."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from optimization.optimizers.adam import Adam
from optimization.optimizers.paths import path_of
from optimization.optimizers.patterns import (
    as_pattern_list,
    matches_any,
    require_matches,
)
from optimization.optimizers.slots import compute_dtype

_ORDERS = ("before", "after")


@keras.saving.register_keras_serializable(package="optimization")
class AdamWeightDecay(Adam):
    """Adam with decoupled weight decay chosen by variable path (Devlin et al. 2018).

    With u the step of `Adam`, where the variable decays:

        w <- w - lr * rate * w;  w <- w - u    "before", as in BERT and Keras
        w <- w - u;  w <- w - lr * rate * w    "after", as in the AdamW of transformers up to 4.49

    The clip by global norm that BERT applies first belongs to the gradient pipeline, not here.

    A variable decays if one of `include_in_weight_decay` is found in its path, else if there is no
    include list and none of `exclude_from_weight_decay` is found. If both lists are given, include
    wins and whatever neither list names decays; `include_in_weight_decay` alone means "only
    these". TensorFlow Model Garden ignores an include list that stands alone.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the step.
        beta_1: Decay of the first moment, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the second moment.
        amsgrad: Use the largest second moment so far (Reddi et al. 2018).
        weight_decay_rate: The rate, times the learning rate; 0 turns decay off.
        include_in_weight_decay: Regular expressions searched in the full path.
        exclude_from_weight_decay: Regular expressions searched in the full path.
        correct_bias: Whether the moments are corrected for their start from zero; not in BERT.
        epsilon_placement: "uncorrected" or "corrected", as `Adam` says.
        weight_decay_order: Whether the weight decays "before" or "after" the step.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For an invalid regular expression, placement or order; at build, for
            expressions of which none matches a variable.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay_rate: float = 0.0,
        include_in_weight_decay: Sequence[str] | str | None = None,
        exclude_from_weight_decay: Sequence[str] | str | None = None,
        correct_bias: bool = True,
        epsilon_placement: Literal["uncorrected", "corrected"] = "uncorrected",
        weight_decay_order: Literal["before", "after"] = "before",
        name: str = "AdamWeightDecay",
        **kwargs: Any,
    ):
        if weight_decay_order not in _ORDERS:
            raise ValueError(
                f"Argument `weight_decay_order` must be one of {_ORDERS}, "
                f"received: weight_decay_order={weight_decay_order!r}"
            )
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            correct_bias=correct_bias,
            epsilon_placement=epsilon_placement,
            name=name,
            **kwargs,
        )
        self.weight_decay_rate = weight_decay_rate
        self.weight_decay_order = weight_decay_order
        # Not named exclude_from_weight_decay: Keras has a method of that name.
        self._include = as_pattern_list(include_in_weight_decay, "include_in_weight_decay")
        self._exclude = as_pattern_list(exclude_from_weight_decay, "exclude_from_weight_decay")

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the moments and decides, once, which variables decay."""
        if self.built:
            return
        require_matches(self._include, variables, "include_in_weight_decay")
        require_matches(self._exclude, variables, "exclude_from_weight_decay")
        self._decays = [self._decays_by_path(path_of(variable)) for variable in variables]
        super().build(variables)

    def _decays_by_path(self, path: str) -> bool:
        if not self.weight_decay_rate:
            return False
        if matches_any(path, self._include):
            return True
        if self._exclude:
            return not matches_any(path, self._exclude)
        return not self._include

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its moments."""
        step = self._step_of(gradient, variable, learning_rate)
        if self._decays[self._get_variable_index(variable)]:
            dtype = compute_dtype(variable)
            weight = ops.cast(variable, dtype)
            decayed = weight if self.weight_decay_order == "before" else weight - step
            step = step + ops.cast(learning_rate, dtype) * self.weight_decay_rate * decayed
        self.assign_sub(variable, ops.cast(step, variable.dtype))

    def is_decayed(self, variable: Any) -> bool:
        """Says whether weight decay acts on a variable."""
        return self._decays[self._get_variable_index(variable)]

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "weight_decay_rate": self.weight_decay_rate,
            "weight_decay_order": self.weight_decay_order,
            "include_in_weight_decay": self._include,
            "exclude_from_weight_decay": self._exclude,
        }
