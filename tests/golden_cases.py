"""The golden updates of `golden/garden_updates.*`: their cases, inputs and stored weights."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

GOLDEN = Path(__file__).parent / "golden"
STEPS = 25
STORED_STEPS = (1, 5, 25)

# In the order in which the generator drew them.
SHAPES = {
    "encoder/embedding/embeddings": (20, 16),
    "encoder/dense/kernel": (16, 12),
    "encoder/dense/bias": (12,),
    "encoder/layer_norm/gamma": (12,),
    "encoder/layer_norm/beta": (12,),
    "head/kernel": (12, 3),
    "head/bias": (3,),
}


def load_cases() -> list[dict[str, Any]]:
    """Returns the cases: config, learning rate of each step, tolerance, and what they end in."""
    cases = json.loads((GOLDEN / "garden_updates.json").read_text())
    with np.load(GOLDEN / "garden_updates.npz") as weights:
        for case in cases:
            case["weights"] = {
                step: {path: weights[f"{case['case']}|{step}|{path}"] for path in SHAPES}
                for step in STORED_STEPS
            }
    return cases


def case_id(case: dict[str, Any]) -> str:
    """Returns a readable name, as pytest shows it."""
    return f"{case['case']}-{case['config']['optimizer']['type']}"


def inputs() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Returns the initial values and the gradients of every step, as the generator drew them."""
    random = np.random.RandomState(7)

    def draw(scale: float, shift: float) -> dict[str, np.ndarray]:
        return {
            path: (random.randn(*shape) * scale + shift).astype("float32")
            for path, shape in SHAPES.items()
        }

    initial = draw(0.1, 0.05)
    return initial, [draw(0.5 if step % 4 else 3.0, 0.0) for step in range(STEPS)]


def make_variable(path: str, value: Any, **kwargs: Any) -> keras.Variable:
    """Returns a variable whose path is exactly `path`."""
    *scopes, name = path.split("/")
    if scopes:
        with keras.name_scope(scopes[0]):
            return make_variable("/".join([*scopes[1:], name]), value, **kwargs)
    return keras.Variable(value, name=name, **kwargs)


def make_variables(initial: dict[str, np.ndarray]) -> list[keras.Variable]:
    """Returns one variable for each entry."""
    return [make_variable(path, value) for path, value in initial.items()]


def run(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    gradients: Sequence[dict[str, np.ndarray]],
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Takes a step with each set of gradients; yields the number of steps and the weights."""
    for step, gradient in enumerate(gradients, start=1):
        grads = [keras.ops.convert_to_tensor(gradient[v.path]) for v in variables]
        optimizer.apply(grads, variables)
        yield step, {v.path: v.numpy().copy() for v in variables}


def worst_error(case: dict[str, Any], optimizer: keras.optimizers.Optimizer) -> float:
    """Runs a case; returns the largest error at a stored step, relative to max |w|."""
    initial, gradients = inputs()
    errors = [
        np.abs(weights[path] - stored).max() / np.abs(stored).max()
        for step, weights in run(optimizer, make_variables(initial), gradients)
        if step in STORED_STEPS
        for path, stored in case["weights"][step].items()
    ]
    return float(max(errors))


def run_case(
    case: dict[str, Any], build: Callable[[dict[str, Any]], keras.optimizers.Optimizer]
) -> None:
    """Builds the optimizer of a case from its config and compares with the stored weights."""
    error = worst_error(case, build(case))
    if not error <= case["tolerance"]:
        raise AssertionError(
            f"case {case_id(case)}: error {error:.2e} > tolerance {case['tolerance']:.0e}"
        )
