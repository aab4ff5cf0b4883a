import keras
import numpy as np
import pytest

from optimization.optimizers.stages import SquareSum, Staged, square_sum
from tests.golden_cases import make_variable


class Normalized(Staged, keras.optimizers.Optimizer):
    """w <- w - lr * sign(|w|^2 - 1) * g / |g|, in two stages."""

    def update_stages(self, gradient, variable, learning_rate):
        (rate,), (squares,) = yield (learning_rate,), [SquareSum(gradient)]
        step = rate * gradient / keras.ops.sqrt(squares)
        (step,), (of_weight, of_rows) = yield (step,), [SquareSum(variable), SquareSum(variable, 1)]
        self.assign_sub(variable, keras.ops.sign(of_weight - 1) * step * of_rows[:, None])


def test_an_update_step_runs_all_stages():
    w, g = np.float32([[3, 4], [0, 1]]), np.float32([[0, 3], [4, 0]])
    variable = make_variable("w", w)
    optimizer = Normalized(learning_rate=0.5)
    optimizer.build([variable])
    optimizer.apply([keras.ops.convert_to_tensor(g)])
    expected = w - 0.5 * g / 5 * np.float32([[25], [1]])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_squares_are_summed_in_float32_at_least(dtype):
    x = keras.ops.cast(np.full((4, 1000), 10.0, "float32"), dtype)
    # 400,000 is beyond float16, and 1,001 beyond the integers of bfloat16.
    assert float(square_sum(x)) == 400_000
    rows = keras.ops.convert_to_numpy(square_sum(x, 1))
    np.testing.assert_array_equal(rows, [100_000] * 4)
    assert rows.dtype == "float32"


def test_squares_of_a_variable():
    variable = keras.Variable(np.float32([[1, 2], [3, 4]]))
    assert float(SquareSum(variable).value()) == 30
    columns = keras.ops.convert_to_numpy(SquareSum(variable, 0).value())
    np.testing.assert_array_equal(columns, [10, 20])
