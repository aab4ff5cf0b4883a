"""What users give as functions of gradients."""

import keras
import numpy as np
import pytest

from optimization.optimizers import PipelineOptimizer

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.function is TensorFlow's"
)


def halve_long_ones(pairs):
    halved = []
    for gradient, variable in pairs:
        if keras.ops.max(gradient) > 1.0:  # a tensor, of which Python's `if` can't decide
            gradient = gradient / 2.0
        halved.append((gradient, variable))
    return halved


@pytest.mark.parametrize("argument", ["gradient_transformers", "gradient_aggregator"])
def test_tf_function_translates_the_functions_of_users(argument):
    import tensorflow as tf

    given = [halve_long_ones] if argument == "gradient_transformers" else halve_long_ones
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), **{argument: given})
    weight = keras.Variable([0.0, 0.0], name="weight")

    @tf.function
    def step(gradient):
        optimizer.apply([gradient], [weight])

    step(tf.constant([4.0, 0.0]))
    step(tf.constant([0.5, 0.0]))
    np.testing.assert_array_equal(weight.numpy(), [-2.5, 0.0])
