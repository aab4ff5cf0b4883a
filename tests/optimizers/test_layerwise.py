import numpy as np
import pytest
from optimization.optimizers.layerwise import Exclusions, trust_ratio

from tests.golden_cases import make_variable


@pytest.mark.parametrize(
    ("weight", "update", "expected"),
    [([3.0, 4.0], [0.0, 10.0], 0.05), ([0.0, 0.0], [1.0, 1.0], 1.0), ([1.0, 1.0], [0.0] * 2, 1.0)],
)
def test_trust_ratio(weight, update, expected):
    norms = [np.linalg.norm(np.float32(vector)) for vector in (weight, update)]
    ratio = trust_ratio(*norms, coefficient=0.1)
    assert float(ratio) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("decay", "adaptation", "decays", "adapts"),
    [
        (None, None, [True, True], [True, True]),
        (["bias"], None, [True, False], [True, False]),
        (["bias"], [], [True, False], [True, True]),
        (None, ["kernel"], [True, True], [False, True]),
    ],
)
def test_exclusions(decay, adaptation, decays, adapts):
    variables = [make_variable(path, [0.0]) for path in ("a/kernel", "a/bias")]
    assert Exclusions(decay, adaptation).flags(variables) == (decays, adapts)
