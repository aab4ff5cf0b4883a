"""What optimizers have in common that scale the step of each layer."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from optimization.configs.base import config_dataclass
from optimization.configs.types import NonNegativeFloat, Patterns
from optimization.matching.patterns import matches_any
from optimization.rules.rule import Rule, given


@config_dataclass
class LayerAdaptationFields(Rule):
    """What LAMB and LARS share.

    Attributes:
        weight_decay_rate: Times the weight, part of the update that is scaled for each layer. At
            most one of it and `weight_decay`, which acts before that update, may be set.
        exclude_from_weight_decay: Regular expressions for the paths that do not decay.
        exclude_from_layer_adaptation: Regular expressions for the paths that are not scaled;
            None for the same as `exclude_from_weight_decay`.
    """

    decay_argument: ClassVar[str] = "weight_decay_rate"
    decay_arguments: ClassVar[tuple[str, ...]] = ("weight_decay_rate", "weight_decay")
    is_layerwise: ClassVar[bool] = True
    variable_settings: ClassVar[Mapping[str, Any]] = {"adapt": True}
    native_arguments: ClassVar[Mapping[str, str]] = {
        "weight_decay": "decoupled_weight_decay",
        "eeta": "trust_coefficient",
    }

    weight_decay_rate: NonNegativeFloat = 0.0
    exclude_from_weight_decay: Patterns | None = None
    exclude_from_layer_adaptation: Patterns | None = None

    def settings(self, path: str, shape: Sequence[int]) -> dict[str, Any]:
        """Returns whether the variable's steps are scaled by its norms."""
        spared = self.exclude_from_layer_adaptation
        spared = self.exclude_from_weight_decay if spared is None else spared
        return {"adapt": not matches_any(path, spared)}

    def decayed(self, u: Any, w: Any, h: Any) -> Any:
        """Returns a direction with the decay in it."""
        return u + h.weight_decay_rate * w if given(h.weight_decay_rate) else u
