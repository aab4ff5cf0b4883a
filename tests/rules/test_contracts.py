"""What must hold for every registered rule by itself, in NumPy, in each position of its switches.

It is its transcription, where `tests/references` has one; what it declares to be elementwise is;
and each of its fields acts. `tests/keras/test_contracts.py` and `tests/torch/test_contracts.py`
compare what trains with it.
"""

from typing import ClassVar

import pytest

from optimization.configs.base import config_dataclass
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.layerwise import LayerwiseRule
from optimization.rules.rule import Rule
from tests.rules import contracts

every_case = contracts.every_case()


@every_case
@pytest.mark.parametrize("shapes", [contracts.SHAPES, contracts.NATIVE], ids=["keras", "torch"])
def test_a_rule_is_its_transcription(kind, fields, shapes):
    if not contracts.check_reference(kind, contracts.section_of(kind, fields), shapes):
        pytest.skip("tests/references has no transcription of it")


@every_case
def test_what_is_declared_elementwise_is(kind, fields):
    contracts.check_elementwise(contracts.section_of(kind, fields))


@pytest.mark.parametrize("kind", contracts.rules())
def test_what_goes_by_the_whole_model_says_so(kind):
    rule, shapes = OPTIMIZERS_CLS.config_class(kind)(), contracts.SHAPES
    alone = [rule.all_settings([path], {path: shape})[0] for path, shape in shapes.items()]
    assert rule.goes_by_model == (rule.all_settings(list(shapes), shapes) != alone)


@pytest.mark.parametrize("kind", contracts.rules())
def test_every_field_acts(kind):
    contracts.check_every_field_acts(OPTIMIZERS_CLS.config_class(kind))


@config_dataclass
class Normalized(Rule):
    """Normalized SGD, which is not elementwise though it says so."""

    class_name: ClassVar[str] = "Normalized"
    elementwise: ClassVar[bool] = True

    idle: float = 0.0

    def step(self, g, w, s, h, xp):
        """Returns the gradient over its norm."""
        return h.lr * g / xp.norm(g)


def test_a_wrong_declaration_fails():
    with pytest.raises(AssertionError):
        contracts.check_elementwise(Normalized())
    with pytest.raises(AssertionError, match="nothing depends on .*idle"):
        contracts.check_every_field_acts(Normalized)


def registered(cls, kind="lacking"):
    """Registers a class for the time of a call."""
    known = dict(OPTIMIZERS_CLS._entries)
    try:
        OPTIMIZERS_CLS.register(kind)(cls)
    finally:
        OPTIMIZERS_CLS._entries.clear()
        OPTIMIZERS_CLS._entries.update(known)


@config_dataclass
class Nameless(Rule):
    """A rule that has no name for its classes."""

    def step(self, g, w, s, h, xp):
        """Returns the gradient."""
        return g


@config_dataclass
class Taken(Nameless):
    """A rule whose classes would be called as Adam's are."""

    class_name: ClassVar[str] = "Adam"


@config_dataclass
class NoStep(Rule):
    """A rule without a formula."""

    class_name: ClassVar[str] = "NoStep"


@config_dataclass
class HalfLayerwise(LayerwiseRule):
    """A rule that lacks the last part of its formula."""

    class_name: ClassVar[str] = "HalfLayerwise"

    def direction(self, g, w, s, h, xp):
        """Returns the gradient."""
        return g


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Nameless, "it needs a `class_name`"),
        (Taken, "its `class_name` 'Adam' is that of the type 'adam'"),
        (NoStep, "it has no formula: define `step`"),
        (HalfLayerwise, "it has no formula: define `finish`"),
    ],
)
def test_a_rule_that_lacks_something_is_not_registered(cls, message):
    registered(Normalized)
    with pytest.raises(TypeError, match=message):
        registered(cls)
