"""`MatcherConfig`: a section that says which parameters it means."""

from collections.abc import Iterator
from typing import Annotated

from annotated_types import MinLen

from optimization.configs.base import Config
from optimization.configs.types import NonNegativeInt, Regex
from optimization.matching.rules import MATCHERS, Rule

Dimensions = Annotated[tuple[NonNegativeInt, ...], MinLen(1)]


class MatcherConfig(Rule, Config):
    """Says which variables are meant: exactly one of the three is set.

    >>> MatcherConfig(ndim=[0, 1]).label
    'ndim 0, 1'

    Attributes:
        match: A regular expression, searched for in the variable's path.
        layer_type: The class of the layer that has the variable, such as `LayerNormalization`; the
            optimizer must be given the model.
        ndim: The numbers of dimensions, such as [0, 1] for biases and the like.
        name: What to call them in tables; None for the matcher.
    """

    match: Regex | None = None
    layer_type: str | None = None
    ndim: Dimensions | None = None
    name: str | None = None

    def check_early(self) -> Iterator[tuple[str, str]]:
        matchers = [n for n in MATCHERS if getattr(self, n) is not None]
        if len(matchers) != 1:
            got = " and ".join(matchers) or "none of them"
            message = f"exactly one of `match`, `layer_type` and `ndim` must be set, got {got}"
            yield matchers[-1] if matchers else "match", message
