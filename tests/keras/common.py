"""What the tests of this folder share."""

import keras
import numpy as np
import pytest

from optimization.optimizers import AdamWeightDecay, PipelineOptimizer
from tests.golden_cases import make_variable, run

BACKEND = keras.backend.backend()
# How `fit` runs where it is not the point that XLA compiles its step, which takes seconds.
UNCOMPILED = {"jit_compile": False} if BACKEND == "tensorflow" else {}
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own feature")

SHAPES = {
    "embedding/embeddings": (7, 4),
    "block/conv/kernel": (3, 2, 4, 5),
    "block/dense/kernel": (6, 5),
    "block/dense/bias": (5,),
    "block/norm/beta": (5,),
    "block/norm/gamma": (5,),
}
STEPS = 10


@keras.saving.register_keras_serializable(package="optimization_tests")
class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each step, from a list; the last one stays."""

    def __init__(self, values):
        self.values = list(values)

    def __call__(self, step):
        table = keras.ops.convert_to_tensor(self.values, dtype="float32")
        last = len(self.values) - 1
        return keras.ops.take(table, keras.ops.minimum(keras.ops.cast(step, "int32"), last))

    def get_config(self):
        return {"values": self.values}


def problem(shapes=None, steps=STEPS, seed=3):
    """Returns initial values and the gradients of each step, float32."""
    random = np.random.default_rng(seed)
    shapes = shapes or SHAPES

    def draw(scale, shift=0.0):
        return {
            path: (random.normal(size=shape) * scale + shift).astype("float32")
            for path, shape in shapes.items()
        }

    return draw(0.3, 0.1), [draw(0.5 if step % 4 else 3.0) for step in range(steps)]


def final_weights(optimizer, initial, gradients, dtype="float32"):
    """Returns the weights after a step with each set of gradients."""
    variables = [make_variable(path, value, dtype=dtype) for path, value in initial.items()]
    for _, weights in run(optimizer, variables, gradients):
        last = weights
    return last


def relative_error(actual, expected):
    """Largest difference, relative to the largest weight."""
    difference = max(np.abs(actual[path] - expected[path]).max() for path in expected)
    return difference / max(np.abs(value).max() for value in expected.values())


def small_model(schedule=False, **kwargs):
    model = keras.Sequential(
        [
            keras.layers.Input((4,), name="input"),
            keras.layers.Dense(8, activation="tanh", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(1, name="head"),
        ],
        name="model",
    )
    # Each backend draws other initial weights from the same seed.
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape) * 0.5)
    inner = AdamWeightDecay(
        TableSchedule([0.1, 0.05, 0.02, 0.01]) if schedule else 0.05,
        weight_decay_rate=0.1,
        exclude_from_weight_decay=["bias", "norm"],
        amsgrad=True,
    )
    optimizer = PipelineOptimizer(inner, **kwargs)
    model.compile(optimizer, loss="mse")
    return model


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 4)).astype("float32")
    return x, x[:, :1] * 2 - x[:, 1:2]
