import keras
import numpy as np
import pytest

from optimization.optimizers import PipelineOptimizer, find_learning_rate
from tests.keras.common import UNCOMPILED

# The losses are 4 (w - 1)^2 and 4 w^2 in turn, so that w never rests. Their curvature is 8:
# gradient descent diverges above 2 / 8.
X = np.full((4, 1), 2.0, "float32")
BATCHES = [(X, X), (X, 0 * X)]


def compiled(optimizer):
    layers = [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
    model = keras.Sequential(layers)
    model.compile(optimizer, loss="mse", **UNCOMPILED)
    model.set_weights([np.full((1, 1), -3.0)])
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.001),
        lambda: PipelineOptimizer(keras.optimizers.SGD(0.001)),
        lambda: PipelineOptimizer(keras.optimizers.SGD(0.001, momentum=0.5), ema={}),
    ],
)
def test_the_rate_of_a_parabola_is_found_and_all_is_put_back(make):
    model = compiled(make())
    model.train_on_batch(X, X)
    before = [v.numpy().copy() for v in [*model.variables, *model.optimizer.variables]]
    found = find_learning_rate(model, BATCHES, lowest=0.02, highest=100.0)
    assert found.diverged
    assert found.steepest < 0.25 < found.rates[-1]
    after = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert float(model.optimizer.learning_rate) == np.float32(0.001)


def test_the_losses_are_those_of_the_steps():
    found = find_learning_rate(compiled(keras.optimizers.SGD(0.1)), [(X, X)], lowest=0.01, steps=5)
    w, expected = -3.0, []
    for rate in found.rates:
        expected.append(4 * (w - 1) ** 2)
        w -= rate * 8 * (w - 1)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)


def test_a_schedule_is_told():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    with pytest.raises(TypeError, match="follows a schedule: compile the model with a number"):
        find_learning_rate(compiled(keras.optimizers.SGD(schedule)), [(X, X)])


def test_what_cannot_be_tested_is_told():
    with pytest.raises(ValueError, match="not compiled"):
        find_learning_rate(keras.Sequential([keras.layers.Dense(1)]), [(X, X)])
    with pytest.raises(ValueError, match="there are no batches"):
        find_learning_rate(compiled(keras.optimizers.SGD(0.1)), [])
