"""Computes the golden figures of `tests/golden` with TensorFlow Model Garden itself.

Model Garden needs TensorFlow 2.20, so this runs in an environment of its own:

    python3 -m venv garden
    garden/bin/pip install 'tensorflow==2.20.*' 'tf_keras==2.20.*' gin-config pyyaml absl-py
    garden/bin/pip install --no-deps tf-models-official==2.20.0
    garden/bin/python tools/garden_goldens.py          # compares, changes nothing
    garden/bin/python tools/garden_goldens.py --write  # rewrites the figures, not the cases

The cases, that is the configs and the steps, are read from the golden files. Exits 1 if a figure
differs from the stored one by more than float32 rounding.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tf_keras
from official.modeling import optimization

GOLDEN = pathlib.Path(__file__).parent.parent / "tests" / "golden"
STEPS = 25
STORED_STEPS = (1, 5, 25)
SHAPES = {
    "encoder/embedding/embeddings": (20, 16),
    "encoder/dense/kernel": (16, 12),
    "encoder/dense/bias": (12,),
    "encoder/layer_norm/gamma": (12,),
    "encoder/layer_norm/beta": (12,),
    "head/kernel": (12, 3),
    "head/bias": (3,),
}


def learning_rate(factory, steps):
    """Returns the learning rate at each step."""
    lr = factory.build_learning_rate()
    return [float(lr(step)) if callable(lr) else float(lr) for step in steps]


def resolved(case):
    """Returns a case's config after its experiment's values and its file's."""
    config = optimization.OptimizationConfig(case["base"])
    config.override(case["optimizer_config"], is_strict=False)
    return config


def draw_inputs():
    """Returns the initial weights and the gradients of each step."""
    random = np.random.RandomState(7)

    def draw(scale, shift):
        return {
            path: (random.randn(*shape) * scale + shift).astype("float32")
            for path, shape in SHAPES.items()
        }

    initial = draw(0.1, 0.05)
    return initial, [draw(0.5 if step % 4 else 3.0, 0.0) for step in range(STEPS)]


def run_updates(case):
    """Returns the learning rates of a case's steps, and its weights after the stored ones."""
    factory = optimization.OptimizerFactory(optimization.OptimizationConfig(case["config"]))
    optimizer = factory.build_optimizer(
        factory.build_learning_rate(), use_legacy_optimizer=case["legacy"]
    )
    initial, gradients = draw_inputs()
    variables = [tf.Variable(value, name=path) for path, value in initial.items()]
    weights = {}
    for step, gradient in enumerate(gradients, start=1):
        optimizer.apply_gradients(zip(map(tf.constant, gradient.values()), variables, strict=True))
        if step in STORED_STEPS:
            for path, variable in zip(initial, variables, strict=True):
                weights[f"{case['case']}|{step}|{path}"] = variable.numpy()
    return learning_rate(factory, range(STEPS)), weights


def relative_difference(computed, stored):
    """Returns the largest difference, relative to the largest stored magnitude."""
    computed, stored = np.asarray(computed), np.asarray(stored)
    return float(np.abs(computed - stored).max() / max(np.abs(stored).max(), 1e-30))


def main():
    """Compares, or with --write rewrites, the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    rates = json.loads((GOLDEN / "garden_lr.json").read_text())
    updates = json.loads((GOLDEN / "garden_updates.json").read_text())
    stored_weights = dict(np.load(GOLDEN / "garden_updates.npz"))
    worst_rate = worst_weight = 0.0
    new_weights = {}
    for case in rates["cases"]:
        lr = learning_rate(optimization.OptimizerFactory(resolved(case)), case["steps"])
        worst_rate = max(worst_rate, relative_difference(lr, case["lr"]))
        case["lr"] = lr
    for case in updates:
        case["lr"], weights = run_updates(case)
        for key, value in weights.items():
            difference = relative_difference(value, stored_weights[key])
            worst_weight = max(worst_weight, difference)
        new_weights |= weights
    print(f"tf_keras {tf_keras.__version__}, tensorflow {tf.__version__}")
    print(f"{len(rates['cases'])} learning rates: largest relative difference {worst_rate:.1e}")
    print(f"{len(updates)} update cases: largest relative difference {worst_weight:.1e}")
    if write:
        (GOLDEN / "garden_lr.json").write_text(json.dumps(rates, indent=0))
        (GOLDEN / "garden_updates.json").write_text(json.dumps(updates, indent=0))
        np.savez_compressed(GOLDEN / "garden_updates.npz", **new_weights)
    # Another CPU may round differently in the last bits, and 25 steps add that up.
    return 0 if write or max(worst_rate, worst_weight) < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
