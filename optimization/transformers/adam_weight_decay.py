"""`AdamWeightDecay` of transformers' TensorFlow part."""

import re
from collections.abc import Sequence
from typing import Any

import keras

from optimization.matching.patterns import matches_any
from optimization.optimizers import adam_weight_decay
from optimization.schedules.scaled import scaled


@keras.saving.register_keras_serializable(package="optimization.transformers")
class AdamWeightDecay(adam_weight_decay.AdamWeightDecay):
    """Adam with decoupled weight decay, by names as in transformers 4.57.6.

    The step is that of `optimization.optimizers.AdamWeightDecay`. Which variables decay is decided
    as there: a variable decays if one of `include_in_weight_decay` is contained in its path; else
    not, if one of `exclude_from_weight_decay` is; else it does. So an include list alone excludes
    nothing, and names that match nothing are no error; a config's `adamw` is stricter in both.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the optimizer step.
        beta_1: Decay of the first moment, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the second moment.
        amsgrad: Use the largest second moment so far (Reddi et al. 2018).
        weight_decay_rate: Before each update, w -= learning_rate * weight_decay_rate * w.
        include_in_weight_decay: Parts of paths, or one part, no expressions.
        exclude_from_weight_decay: Parts of paths, or one part, no expressions.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `clipnorm`; `lr`, which stands
            for `learning_rate`; and `decay`, by which the rate becomes lr / (1 + decay * step).
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
        name: str = "AdamWeightDecay",
        **kwargs: Any,
    ):
        learning_rate = kwargs.pop("lr", learning_rate)
        super().__init__(
            learning_rate=scaled(learning_rate, decay=kwargs.pop("decay", 0.0)),
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            weight_decay_rate=weight_decay_rate,
            name=name,
            **kwargs,
        )
        self._including = _parts(include_in_weight_decay)
        self._excluding = _parts(exclude_from_weight_decay)

    def _decays_by_path(self, path: str) -> bool:
        if not self.weight_decay_rate:
            return False
        if matches_any(path, [re.escape(part) for part in self._including]):
            return True
        return not matches_any(path, [re.escape(part) for part in self._excluding])

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **super().get_config(),
            "include_in_weight_decay": self._including or None,
            "exclude_from_weight_decay": self._excluding or None,
        }


def _parts(names: Sequence[str] | str | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())
