"""Optimizers and learning rate schedules for Keras 3 and PyTorch, built from configuration.

    import optimization

    config = optimization.OptimizationConfig({
        "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
        "learning_rate": {"type": "cosine", "cosine": {
            "initial_learning_rate": 0.1, "decay_steps": 10000}},
        "warmup": {"type": "linear", "linear": {"warmup_steps": 500}},
    })
    factory = optimization.OptimizerFactory(config)
    optimizer = factory.build_optimizer(factory.build_learning_rate())

Importing this package, reading files, validating and computing curves imports neither TensorFlow,
nor Keras, JAX or PyTorch; what needs them imports them when it is called.
"""

from optimization import extras
from optimization._version import __version__ as __version__
from optimization.known_to_keras import make_known

__getattr__, __dir__, __all__ = extras.attach_stub(__name__, __file__)

make_known()
del make_known
