"""What the contestants on TensorFlow share: updates in a loop inside of a `tf.function`.

A training loop takes many steps in one call, and has the gradients from operations inside; here
they are read from variables, which costs nothing either.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tools.benchmark.lists import Parameter


def variable(tensor: Parameter) -> tf.Variable:
    """Returns a variable for the gradient of a parameter."""
    return tf.Variable(tensor.gradient(), trainable=False)


class Loop:
    """Applies gradients from variables again and again.

    Args:
        gradients: The variables that hold the gradients.
        apply: Takes the list of gradients and updates the weights.
    """

    def __init__(self, gradients: Sequence[tf.Variable], apply: Callable[[list], None]) -> None:
        self._gradients = gradients

        # As in the trainer: an optimizer's code needs no translation, which takes its time.
        @tf.autograph.experimental.do_not_convert
        def step() -> None:
            apply([gradient.read_value() for gradient in gradients])

        @tf.function
        def run(calls: tf.Tensor) -> None:
            for _ in tf.range(calls):
                step()

        self._run = run

    def seconds_without(self) -> float:
        """Returns the seconds of a first call of such a loop that updates nothing.

        It reads the gradients, and is traced and optimized for that.
        """
        count = tf.Variable(0)

        def read(values: list) -> None:
            with tf.control_dependencies(values):
                count.assign_add(1)

        start = time.perf_counter()
        Loop(self._gradients, read).run(1)
        return time.perf_counter() - start

    def run(self, calls: int) -> None:
        """Applies the gradients `calls` times. TensorFlow returns when the last is done."""
        self._run(tf.constant(calls))

    def set_gradients(self, gradients: Sequence[np.ndarray]) -> None:
        """Replaces the gradients."""
        for held, gradient in zip(self._gradients, gradients, strict=True):
            held.assign(gradient)


def total_bytes(variables: Sequence) -> int:
    """Returns the bytes of TensorFlow's or Keras' variables."""
    return sum(int(np.prod(v.shape, dtype=np.int64)) * tf.as_dtype(v.dtype).size for v in variables)
