"""Trainings with spikes: what their gradients are, and what must come of them."""

import numpy as np

from optimization import OptimizationConfig
from tests.references import spikes

SHAPES = {"body/kernel": (4, 3), "body/bias": (3,), "head/kernel": (3, 2)}
STEPS, RATE = 40, 0.1
ZCLIP = {"warmup_steps": 6, "decay": 0.9}
WINDOW, WARMUP = 12, 5
SKIPS = {
    "sigma": {"sigma": 4.0, "window": WINDOW, "warmup_steps": WARMUP},
    "quantile": {"quantile": 0.9, "window": WINDOW, "warmup_steps": WARMUP},
    "loss": {"sigma": 4.0, "window": WINDOW, "warmup_steps": WARMUP, "of": ["loss"]},
    "both": {
        **{"quantile": 1.0, "window": WINDOW, "warmup_steps": WARMUP},
        "of": ["loss", "gradient_norm"],
    },
}


def problem(seed=4, steps=STEPS):
    """Returns initial weights, gradients, some far larger than others, and losses."""
    random = np.random.default_rng(seed)
    initial = {path: random.normal(0, 0.3, shape) for path, shape in SHAPES.items()}
    factors = np.ones(steps)
    factors[[9, 20, 21, 33]] = 8.0, 30.0, 3.0, 5.0
    grads = [
        {path: factor * random.normal(0, 1.0, shape) for path, shape in SHAPES.items()}
        for factor in factors
    ]
    losses = np.abs(random.normal(2.0, 0.1, steps))
    losses[[15, 33]] = 9.0, 5.0
    return initial, grads, losses.tolist()


def config(kind="sgd", fields=None, rate=None, **sections):
    """Returns a config; the rate is a constant, or falls with the updates taken."""
    linear = {"initial_learning_rate": RATE, "end_learning_rate": 0.0, "decay_steps": STEPS}
    constant = {"type": "constant", "constant": {"learning_rate": RATE}}
    return OptimizationConfig(
        {
            "optimizer": {"type": kind, kind: {**(fields or {})}},
            "learning_rate": {"type": "linear", "linear": linear} if rate else constant,
            **sections,
        }
    )


def norm_of(gradients):
    return float(np.sqrt(sum((g**2).sum() for g in gradients.values())))


def clipped_weights(initial, gradients, most=np.inf):
    """Returns weights after plain steps, clipped by ZClip and then by `most`, and how many were."""
    clip = spikes.ZClip(alpha=ZCLIP["decay"], warmup=ZCLIP["warmup_steps"])
    weights = {path: w.copy() for path, w in initial.items()}
    for grads in gradients:
        norm = norm_of(grads)
        bound = min(filter(None, (clip.bound(norm), most)))
        for path, g in grads.items():
            weights[path] -= RATE * g * min(1.0, bound / norm)
    return weights, clip.clipped


def skipped(kind, gradients, losses):
    """Says of each step whether it must be skipped."""
    fields, found = SKIPS[kind], [False] * len(gradients)
    values = {"gradient_norm": [norm_of(g) for g in gradients], "loss": losses}
    for name in fields.get("of", ["gradient_norm"]):
        limits = fields.get("sigma"), fields.get("quantile")
        own = spikes.are_spikes(values[name], WINDOW, WARMUP, *limits)
        found = [a or b for a, b in zip(found, own, strict=True)]
    return found


AVERAGE = {"average_decay": 0.99, "dynamic_decay": True}
"""A section `ema` whose decay grows with the updates taken."""


def kept_weights(initial, gradients, is_skipped):
    """Returns the weights after steps of momentum, at a rate that falls, without those skipped."""
    return _kept(initial, gradients, is_skipped)[0]


def kept_average(initial, gradients, is_skipped):
    """Returns their average, which neither moves nor counts at a step that is skipped."""
    return _kept(initial, gradients, is_skipped)[1]


def _kept(initial, gradients, is_skipped):
    average = {path: w.copy() for path, w in initial.items()}
    weights = {path: w.copy() for path, w in initial.items()}
    momentum, taken = {path: 0 * w for path, w in initial.items()}, 0
    for grads, leaves_out in zip(gradients, is_skipped, strict=True):
        if leaves_out:
            continue
        for path, g in grads.items():
            momentum[path] = 0.9 * momentum[path] - RATE * (1 - taken / STEPS) * g
            weights[path] += momentum[path]
        taken += 1
        decay = min(AVERAGE["average_decay"], (1 + taken) / (10 + taken))
        for path, weight in weights.items():
            average[path] += (1 - decay) * (weight - average[path])
    return weights, average
