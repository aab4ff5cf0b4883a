import keras
import numpy as np
import pytest

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.optimizers import EvaluateAverages, PipelineOptimizer
from tests.keras.common import data, tensorflow_only

pytestmark = pytest.mark.slow


def layers(dtype):
    hidden = keras.layers.Dense(8, activation="tanh", dtype=dtype, name="hidden")
    return hidden, keras.layers.Dense(1, dtype=dtype, name="head")


class Subclassed(keras.Model):
    def __init__(self, dtype):
        super().__init__()
        self.hidden, self.head = layers(dtype)

    def call(self, x):
        return self.head(self.hidden(x))


def sequential(dtype):
    return keras.Sequential(layers(dtype))


def trained(make, dtype, optimizer, build_first, **kwargs):
    keras.utils.set_random_seed(1)
    model = make(dtype)
    x, y = data()
    if build_first:
        model(x)
    model.compile(optimizer(), loss="mse", **kwargs)
    fit = {"shuffle": False, "verbose": 0, "batch_size": 16}
    if model.optimizer.averages_weights:
        fit["callbacks"] = [EvaluateAverages()]
    for count in (64, 24):  # the second has a batch of another size, which is traced anew
        model.fit(x[:count], y[:count], **fit)
    return model


def assert_the_same(*arguments, **kwargs):
    late, early = (trained(*arguments, first, **kwargs) for first in (False, True))
    for ours, theirs in zip(late.get_weights(), early.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    state, expected = (list(m.optimizer.variables_by_path().values()) for m in (late, early))
    for ours, theirs in zip(state, expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


@pytest.mark.parametrize("make", [sequential, Subclassed])
@pytest.mark.parametrize(
    ("dtype", "kwargs"),
    [
        ("float32", {}),
        ("bfloat16", {"jit_compile": False}),
        ("float16", {"run_eagerly": True}),
    ],
)
def test_weights_made_inside_fit_train_as_those_made_before(make, dtype, kwargs):
    def optimizer():
        # No dynamic decay: the average remembers where it started.
        ema = {"average_decay": 0.9, "dynamic_decay": False}
        return PipelineOptimizer(keras.optimizers.Adam(0.01), ema=ema)

    assert_the_same(make, dtype, optimizer, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPTIMIZERS_CLS))
def test_every_optimizer_trains_weights_made_inside_fit(name):
    def optimizer():
        ema = None if name.startswith("schedule_free") else {"average_decay": 0.9}
        return PipelineOptimizer(OPTIMIZERS_CLS[name](learning_rate=1e-3), ema=ema)

    assert_the_same(sequential, "bfloat16", optimizer)


@tensorflow_only
@pytest.mark.parametrize("depends_on_data", [False, True])
def test_weights_made_inside_a_function_of_ones_own(depends_on_data):
    """TensorFlow runs the first trace too, if the initial values depend on its arguments."""
    import tensorflow as tf

    optimizer = PipelineOptimizer(
        keras.optimizers.SGD(0.5), ema={"average_decay": 0.5, "dynamic_decay": False}
    )
    made = []

    @tf.function
    def step(x):
        if not made:
            made.append(tf.Variable(lambda: tf.reduce_sum(x) if depends_on_data else 3.0))
        optimizer.apply([tf.ones(())], made)

    weight, average = 3.0, 3.0
    for x in ([1.0, 2.0], [1.0, 2.0], [5.0]):  # the last one is traced anew
        step(tf.constant(x))
        weight -= 0.5
        average = (average + weight) / 2
    (kept,) = [v for k, v in optimizer.variables_by_path().items() if k.startswith("average/")]
    assert (float(made[0]), float(kept)) == (weight, average)
