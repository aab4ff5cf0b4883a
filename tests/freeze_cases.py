"""Groups that are frozen for the first updates: what must come of them."""

import numpy as np

from optimization import OptimizationConfig

SHAPES = {"body/kernel": (4, 3), "head/kernel": (3, 2), "tail/kernel": (2, 2)}
STEPS, RATE, CLIP = 12, 0.1, 1.5
FROZEN = {"head": 4, "tail": 9}  # updates
GROUPS = [{"match": f"^{name}", "freeze_steps": steps} for name, steps in FROZEN.items()]


def config(kind="adam", groups=GROUPS, **fields):
    """Returns a config of an optimizer whose rate falls."""
    linear = {"initial_learning_rate": RATE, "end_learning_rate": 0.0, "decay_steps": 2 * STEPS}
    return OptimizationConfig(
        {
            "optimizer": {"type": kind, kind: {"global_clipnorm": CLIP, **fields}},
            "learning_rate": {"type": "linear", "linear": linear},
            "param_groups": groups,
        }
    )


def problem(seed=2, steps=STEPS):
    """Returns initial weights and gradients, NaN for some of what is frozen."""
    random = np.random.default_rng(seed)
    initial = {path: random.normal(0, 0.3, shape) for path, shape in SHAPES.items()}
    grads = [
        {path: random.normal(0, 1.0, shape) for path, shape in SHAPES.items()} for _ in range(steps)
    ]
    grads[2]["head/kernel"][:] = np.nan
    return initial, grads


def start_of(path):
    return FROZEN.get(path.partition("/")[0], 0)


def weights_after(initial, gradients):
    """Returns the weights after each step of Adam, whose moments start where a weight thaws."""
    weights = {path: w.copy() for path, w in initial.items()}
    m = {path: 0 * w for path, w in initial.items()}
    v = {path: 0 * w for path, w in initial.items()}
    found = []
    for step, grads in enumerate(gradients):
        trained = {path: g for path, g in grads.items() if step >= start_of(path)}
        norm = np.sqrt(sum((g**2).sum() for g in trained.values()))
        for path, g in trained.items():
            g = g * min(1.0, CLIP / norm)
            t = step - start_of(path) + 1
            m[path] = 0.9 * m[path] + 0.1 * g
            v[path] = 0.999 * v[path] + 0.001 * g**2
            rate = RATE * (1 - step / (2 * STEPS)) * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            weights[path] = weights[path] - rate * m[path] / (np.sqrt(v[path]) + 1e-7)
        found.append({path: w.copy() for path, w in weights.items()})
    return found
