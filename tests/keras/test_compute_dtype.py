import numpy as np
import pytest

from optimization.keras.gradients import compute_dtype
from optimization.optimizers import LAMB
from tests.golden_cases import make_variable


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float16", "float32"), ("bfloat16", "float32"), ("float32",) * 2]
)
def test_slots_hold_float32_at_least(dtype, expected):
    variable = make_variable("a/kernel", [1.0, 2.0], dtype=dtype)
    assert compute_dtype(variable) == expected
    optimizer = LAMB()
    optimizer.build([variable])
    slot = optimizer.state_of(0)["momentum"]
    assert (slot.dtype, tuple(slot.shape)) == (expected, (2,))
    assert slot.path.endswith("a_kernel_momentum")
    np.testing.assert_array_equal(slot.numpy(), 0)
