import keras
import numpy as np
import pytest

from optimization.optimizers import LAMB
from optimization.optimizers.slots import bias_correction, compute_dtype, root_mean_square
from tests.golden_cases import make_variable


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float16", "float32"), ("bfloat16", "float32"), ("float32",) * 2]
)
def test_slots_hold_float32_at_least(dtype, expected):
    variable = make_variable("a/kernel", [1.0, 2.0], dtype=dtype)
    assert compute_dtype(variable) == expected
    slot = LAMB().add_variable_from_reference(variable, name="momentum")
    assert (slot.dtype, tuple(slot.shape)) == (expected, (2,))
    assert slot.path.endswith("a_kernel_momentum")
    np.testing.assert_array_equal(slot.numpy(), 0)


def test_root_mean_square():
    assert float(root_mean_square(np.float32([3.0, -4.0]))) == pytest.approx(12.5**0.5)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 0.999999])
def test_bias_corrections_are_exact(decay):
    for steps in (1, 2, 50, 10_000):
        actual = float(bias_correction(decay, keras.ops.cast(steps, "float32")))
        # A few roundings of float32; the difference 1 - 0.999999 would be wrong by 5 %.
        assert actual == pytest.approx(1 - decay**steps, rel=5e-7)


def test_the_bias_correction_of_a_scheduled_decay():
    decay = keras.ops.convert_to_tensor(0.5, dtype="float32")
    assert float(bias_correction(decay, keras.ops.cast(2, "float32"))) == 0.75
