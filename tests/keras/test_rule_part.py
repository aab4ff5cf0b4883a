import json
from pathlib import Path

import keras
import numpy as np
import pytest

from optimization.keras.gradients import compute_dtype
from optimization.keras.rule_part import KerasArrays, rate_now, rule_arguments
from optimization.optimizers import LAMB
from optimization.rules.rule import origins
from tests.golden_cases import make_variable
from tests.keras.common import TableSchedule


def test_a_multiple_of_the_rate_as_it_is():
    optimizer, variable = keras.optimizers.SGD(0.25), keras.Variable(0.5, name="rate")
    assert float(rate_now(optimizer, variable, 0.1)) == pytest.approx(0.05)
    variable.assign(2.0)
    assert float(rate_now(optimizer, variable, 0.1)) == pytest.approx(0.2)
    assert float(rate_now(optimizer, None, 1.0)) == 0.25
    optimizer.iterations.assign(1)
    assert float(rate_now(optimizer, TableSchedule([0.1, 0.3]), 2.0)) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float16", "float32"), ("bfloat16", "float32"), ("float32",) * 2]
)
def test_slots_hold_float32_at_least(dtype, expected):
    variable = make_variable("a/kernel", [1.0, 2.0], dtype=dtype)
    assert compute_dtype(variable) == expected
    optimizer = LAMB()
    optimizer.build([variable])
    slot = optimizer.part_of(variable).state_of(variable)["momentum"]
    assert (slot.dtype, tuple(slot.shape)) == (expected, (2,))
    assert slot.path.endswith("a_kernel_momentum")
    np.testing.assert_array_equal(slot.numpy(), 0)


ARGUMENTS = json.loads((Path(__file__).parents[1] / "golden/positional_arguments.json").read_text())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_calls_by_position_keep_their_meaning(name):
    (rule,) = (rule for rule in origins() if rule.class_name == name)
    assert rule_arguments(rule)[: len(ARGUMENTS[name])] == ARGUMENTS[name]


def test_eigenvectors_are_as_near_as_float32_allows():
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(8, 24))
        symmetric = np.float32(x @ x.T / np.linalg.norm(x @ x.T))
        values, vectors = KerasArrays(keras.ops).eigh(keras.ops.convert_to_tensor(symmetric))
        found = keras.ops.convert_to_numpy(vectors)
        expected = np.linalg.eigh(np.float64(symmetric))
        signs = np.sign(np.sum(found * expected.eigenvectors, axis=0))
        # Rounding over the distance of eigenvalues; LAPACK's float32 is up to 1.6e-6 from them.
        np.testing.assert_allclose(found * signs, expected.eigenvectors, atol=3e-6)
        np.testing.assert_allclose(values, expected.eigenvalues, atol=5e-7)
        assert found.dtype == np.float32
