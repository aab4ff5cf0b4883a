"""What the tests of this folder share."""

import importlib.util

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="optimization.torch is an extra: it needs PyTorch")

from optimization import OptimizationConfig  # noqa: E402
from optimization.torch import OptimizerFactory  # noqa: E402
from optimization.torch.compiled import COMPILES  # noqa: E402

compiling = pytest.mark.skipif(
    not COMPILES, reason=f"torch.compile of PyTorch {torch.__version__} fails on steps over lists"
)

SHAPES = {
    "embedding.weight": (7, 4),
    "layer_0.conv.weight": (3, 2, 4, 5),
    "layer_0.dense.weight": (6, 5),
    "layer_0.dense.bias": (5,),
    "layer_1.norm.weight": (5,),
    "scale": (),
}
STEPS = 25


def skip_beside_tensorflow():
    """Skips a module that imports Keras where TensorFlow would crash beside PyTorch."""
    keras = pytest.importorskip("keras")
    if keras.backend.backend() == "tensorflow" and importlib.util.find_spec("triton"):
        reason = "TensorFlow and the Triton that torch.optim imports crash in one process"
        pytest.skip(reason, allow_module_level=True)


def config_of(kind, learning_rate=0.01, **section):
    """Returns a config of a type, with a constant rate or the section that is given."""
    if not isinstance(learning_rate, dict):
        learning_rate = {"type": "constant", "constant": {"learning_rate": learning_rate}}
    return OptimizationConfig(
        {"optimizer": {"type": kind, kind: section}, "learning_rate": learning_rate}
    )


def problem(shapes=None, steps=STEPS, seed=3):
    """Returns initial values and the gradients of each step, float64."""
    random = np.random.default_rng(seed)
    shapes = shapes or SHAPES
    initial = {name: random.normal(0.1, 0.3, shape) for name, shape in shapes.items()}
    gradients = [
        {name: random.normal(0, 0.5 if step % 4 else 3.0, shape) for name, shape in shapes.items()}
        for step in range(steps)
    ]
    return initial, gradients


def model_of(weights):
    """Returns a model with these weights, in float64, by their paths with `_` for `/`."""
    model = torch.nn.Module()
    for path, weight in weights.items():
        own = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        model.register_parameter(path.replace("/", "_"), own)
    return model


def parameters(initial, dtype=torch.float64):
    """Returns parameters by name."""
    return {
        name: torch.nn.Parameter(torch.tensor(value, dtype=dtype))
        for name, value in initial.items()
    }


def set_gradients(params, gradients):
    """Gives parameters their gradients; those without one have None."""
    for name, parameter in params.items():
        gradient = gradients.get(name)
        if gradient is not None:
            gradient = torch.as_tensor(gradient, dtype=parameter.dtype)
            # Of the parameter's shape also where NumPy made a number of it.
            gradient = gradient.reshape(parameter.shape).clone()
        parameter.grad = gradient


def train(optimizer, params, gradients, scheduler=None):
    """Takes a step with each set of gradients; returns the weights."""
    for grads in gradients:
        set_gradients(params, grads)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return weights_of(params)


def weights_of(params):
    """Returns the weights by name, as arrays."""
    return {name: p.detach().double().numpy().copy() for name, p in params.items()}


def factory_weights(config, initial, gradients, dtype=torch.float64, **options):
    """Returns the weights after training by what the factory builds."""
    params = parameters(initial, dtype)
    factory = OptimizerFactory(config, train_steps=len(gradients))
    optimizer = factory.build_optimizer(params.items(), **options)
    return train(optimizer, params, gradients, factory.build_scheduler(optimizer))


def largest_difference(one, other):
    """Returns max |difference| / max |weight| over all parameters."""
    scale = max(np.abs(value).max() for value in other.values())
    return max(np.abs(one[name] - other[name]).max() for name in other) / scale
