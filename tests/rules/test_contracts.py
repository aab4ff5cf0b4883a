"""Every registered rule in every position of its switches: its transcription, NumPy, Keras.

`tests/torch/test_contracts.py` does the same with PyTorch's lists. Fused updates, sparse gradients
and what is saved have their tests in `tests/keras` and `tests/distribution`, over the registry too.
"""

from typing import ClassVar

import numpy as np
import pytest

from optimization.configs.base import config_dataclass
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.rule import Rule
from optimization.schedules import LrConfig
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


@pytest.mark.slow
@every_case
def test_keras_is_numpy(kind, fields):
    pytest.importorskip("keras")
    from optimization.schedules.keras_schedules import build_schedule
    from tests.golden_cases import make_variables, run

    section = contracts.section_of(kind, fields)
    initial, gradients = contracts.problem(steps=3)
    own = section.own_learning_rate()
    rate = build_schedule(LrConfig(contracts.RATE).get()) if own is None else None
    optimizer = OPTIMIZERS_CLS[kind](rate, **section.arguments())
    single = [{path: np.float32(g) for path, g in step.items()} for step in gradients]
    variables = make_variables({path: np.float32(w) for path, w in initial.items()})
    *_, (_, found) = run(optimizer, variables, single)
    expected = contracts.numpy_weights(section, initial, gradients, contracts.stepped)
    # Roundings of float32, in 3 steps; a step of `sign` or a division by small roots magnifies.
    assert contracts.difference(found, expected) < 1e-5
