"""How weights decay: fields that rules share."""

from typing import Any, ClassVar

from optimization.configs.types import Patterns
from optimization.rules.rule import Numbers, Rule, given


class DecayLists(Rule):
    """Lists of the variables that decay.

    Attributes:
        include_in_weight_decay: Regular expressions, searched for in a variable's path; where one
            matches, the variable decays even if it is excluded. Alone it means "only these".
        exclude_from_weight_decay: Regular expressions for the variables that do not decay.
    """

    include_in_weight_decay: Patterns | None = None
    exclude_from_weight_decay: Patterns | None = None


class DecayForms(Rule):
    """The two forms of a decay; the formula has its gradient pass through `with_decay`.

    Attributes:
        decoupled_weight_decay: Whether weights decay by themselves: w -= learning_rate *
            weight_decay * w. With false, weight_decay * w is added to the gradient, before
            everything (L2 regularization), as in most classes of PyTorch unless told otherwise.
    """

    later_arguments: ClassVar[tuple[str, ...]] = ("decoupled_weight_decay",)

    decoupled_weight_decay: bool = True

    def decay_before(self, h: Numbers) -> Any:
        return _rate(self, h) if h.decoupled_weight_decay else 0.0

    def with_decay(self, g: Any, w: Any, h: Numbers) -> Any:
        """Returns the gradient, with the decay if that is not decoupled."""
        rate = _rate(self, h)
        return g if h.decoupled_weight_decay or not given(rate) else g + rate * w


def _rate(rule: Rule, h: Numbers) -> Any:
    return getattr(h, rule.decay_arguments[0])
