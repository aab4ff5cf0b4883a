"""This project's optimizers on Keras and TensorFlow."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

import optimization
from tools.benchmark.contestants import tensorflow_loop
from tools.benchmark.contestants.configs import config
from tools.benchmark.lists import Parameter
from tools.benchmark.variants import Variant


class Project:
    """Optimizers from this project's factory.

    Args:
        jit_compile: The section's field of that name; None for its default.
        devices: Logical CPU devices; with more than one, a MirroredStrategy over them.
    """

    def __init__(self, jit_compile: bool | None = None, devices: int = 1) -> None:
        self._jit_compile = jit_compile
        self._strategy = tf.distribute.get_strategy()
        if devices > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            logical = [tf.config.LogicalDeviceConfiguration()] * devices
            tf.config.set_logical_device_configuration(cpu, logical)
            names = [f"CPU:{i}" for i in range(devices)]
            self._strategy = tf.distribute.MirroredStrategy(names)

    def versions(self) -> dict[str, str]:
        """Returns the versions of the project, of Keras and of TensorFlow."""
        return {
            "optimizer-factory": optimization.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        }

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> "_Update":
        """Returns the update of these parameters."""
        factory = optimization.OptimizerFactory(config(variant, jit_compile=self._jit_compile))
        with self._strategy.scope():
            weights = [keras.Variable(t.weights(), name=t.name) for t in tensors]
            gradients = [tensorflow_loop.variable(t) for t in tensors]
            optimizer = factory.build_optimizer(factory.build_learning_rate())
            optimizer.build(weights)
        return _Update(optimizer, weights, gradients, self._strategy)


class _Update(tensorflow_loop.Loop):
    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        weights: list[keras.Variable],
        gradients: list[tf.Variable],
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._optimizer = optimizer
        self._weights = weights
        self.copies = strategy.num_replicas_in_sync
        if strategy.num_replicas_in_sync == 1:
            super().__init__(gradients, lambda values: optimizer.apply(values, weights))
            return

        def apply(values: list) -> None:
            # Each replica has gradients of its own, as after the sum over replicas.
            read = strategy.run(lambda: [gradient.read_value() for gradient in gradients])
            optimizer.apply(read, weights)

        super().__init__(gradients, apply)

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(weight) for weight in self._weights]

    def averages(self) -> list[np.ndarray] | None:
        if self._optimizer.ema is None:
            return None
        with self._optimizer.averaged():
            return self.weights()

    def state_bytes(self) -> int:
        return tensorflow_loop.total_bytes(self._optimizer.variables)

    def close(self) -> None:
        keras.utils.clear_session()
