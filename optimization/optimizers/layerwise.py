"""What LAMB and LARS share: layer-wise ratios, and exclusions by path."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from optimization.optimizers.paths import path_of
from optimization.optimizers.patterns import (
    as_pattern_list,
    matches_any,
    require_matches,
)


def trust_ratio(weight_norm: Any, update_norm: Any, coefficient: float = 1.0) -> Any:
    """Returns coefficient * |weight| / |update| (L2 norms), or 1 where a norm is 0."""
    defined = ops.logical_and(weight_norm > 0, update_norm > 0)
    safe_norm = ops.where(defined, update_norm, ops.ones_like(update_norm))
    ratio = coefficient * weight_norm / safe_norm
    return ops.where(defined, ratio, ops.ones_like(ratio))


class DecaysByPath:
    """Mixin: weight decay, in the update or before it, spares what exclusions say.

    `build` sets `_decays`, what `Exclusions.flags` returns first.
    """

    def _use_weight_decay(self, variable: Any) -> bool:
        decays = self._decays[self._get_variable_index(variable)]
        return decays and super()._use_weight_decay(variable)

    def is_decayed(self, variable: Any) -> bool:
        """Says whether weight decay, of either kind, acts on a variable."""
        rate = self.weight_decay_rate or self.weight_decay
        return bool(rate) and self._use_weight_decay(variable)


class Exclusions:
    """Which variables are spared weight decay and layer adaptation.

    Args:
        from_weight_decay: Regular expressions searched in a variable's path, or None.
        from_layer_adaptation: The same; None means the same list as `from_weight_decay`, an
            empty list means that every variable is adapted.
    """

    def __init__(
        self,
        from_weight_decay: Sequence[str] | str | None,
        from_layer_adaptation: Sequence[str] | str | None,
    ):
        self._decay = as_pattern_list(from_weight_decay, "exclude_from_weight_decay")
        self._adaptation = as_pattern_list(from_layer_adaptation, "exclude_from_layer_adaptation")

    def flags(self, variables: Sequence[Any]) -> tuple[list[bool], list[bool]]:
        """Returns, for each variable, whether it decays and whether it is adapted."""
        require_matches(self._decay, variables, "exclude_from_weight_decay")
        require_matches(self._adaptation, variables, "exclude_from_layer_adaptation")
        adaptation = self._decay if self._adaptation is None else self._adaptation
        paths = [path_of(variable) for variable in variables]
        decays = [not matches_any(path, self._decay) for path in paths]
        adapts = [not matches_any(path, adaptation) for path in paths]
        return decays, adapts

    def get_config(self) -> dict[str, list[str] | None]:
        """Returns the constructor arguments of LAMB and LARS that this holds."""
        return {
            "exclude_from_weight_decay": self._decay,
            "exclude_from_layer_adaptation": self._adaptation,
        }
