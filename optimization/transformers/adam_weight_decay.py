"""`AdamWeightDecay` of transformers' TensorFlow part."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import keras

from optimization.configs.base import config_dataclass
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.matching.patterns import matches_any
from optimization.rules.adamw import AdamWeightDecayConfig
from optimization.schedules.scaled import scaled


@config_dataclass
class _Rule(AdamWeightDecayConfig):
    """`adamw`, with parts of paths in the place of regular expressions."""

    class_name: ClassVar[str] = "AdamWeightDecay"

    include_in_weight_decay: tuple[str, ...] | None = None
    exclude_from_weight_decay: tuple[str, ...] | None = None

    def decays(self, path: str) -> bool:
        including = map(re.escape, self.include_in_weight_decay or ())
        excluding = map(re.escape, self.exclude_from_weight_decay or ())
        return matches_any(path, list(including)) or not matches_any(path, list(excluding))


@keras.saving.register_keras_serializable(package="optimization.transformers")
class AdamWeightDecay(RuleOptimizer):
    """Adam with decoupled weight decay, by names as in transformers 4.57.6.

    The step is that of `optimization.optimizers.AdamWeightDecay`. Which variables decay is decided
    as there: a variable decays if one of `include_in_weight_decay` is contained in its path; else
    not, if one of `exclude_from_weight_decay` is; else it does. So an include list alone excludes
    nothing, and names that match nothing are no error; a config's `adamw` is stricter in both.

    >>> optimizer = AdamWeightDecay(0.5, weight_decay_rate=0.1, exclude_from_weight_decay=["bias"])

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

    rule_class = _Rule

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
        super().__init__(
            scaled(kwargs.pop("lr", learning_rate), decay=kwargs.pop("decay", 0.0)),
            *(beta_1, beta_2, epsilon, amsgrad, weight_decay_rate),
            *map(_parts, (include_in_weight_decay, exclude_from_weight_decay)),
            name=name,
            **kwargs,
        )


def _parts(names: Sequence[str] | str | None) -> list[str] | None:
    return [names] if isinstance(names, str) else list(names or ()) or None
