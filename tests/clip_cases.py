"""Clips of groups, and clips on schedules: a config, gradients, and what must come of them."""

import numpy as np

from optimization import OptimizationConfig

SHAPES = {
    "body/kernel": (4, 3),
    "body/bias": (3,),
    "other/kernel": (3, 3),
    "head/kernel": (3, 2),
    "head/scale": (2,),
    "tail/kernel": (2, 2),
}
GROUPS = [
    {"match": "^head", "name": "head", "global_clipnorm": 0.5},
    {"match": "bias", "clipvalue": 0.05},
    {"match": "^tail", "clipnorm": 0.0},  # none at all
]
STEPS = 8
RATE = 0.1
FIRST, LAST = 4.0, 0.2  # of the bound that follows a schedule, over STEPS - 2 updates
KINDS = ("global_clipnorm", "clipnorm", "clipvalue", "gradient_clip_norm")


def config(kind="global_clipnorm", groups=GROUPS, schedule=True, **section):
    """Returns a config of a plain step, with a clip that follows a schedule."""
    linear = {"initial_learning_rate": FIRST, "end_learning_rate": LAST, "decay_steps": STEPS - 2}
    name, fields = "sgd", {"momentum": 0.0}
    if kind == "gradient_clip_norm":  # without moments adamw's step is that of sign descent
        name, fields = "adamw", {"beta_1": 0.0, "beta_2": 0.0, "epsilon": 1.0}
    return OptimizationConfig(
        {
            "optimizer": {"type": name, name: {**fields, kind: FIRST, **section}},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": RATE}},
            "param_groups": groups,
            "schedules": {kind: {"type": "linear", "linear": linear}} if schedule else {},
        }
    )


OF_MUON = {"clipnorm": 0.5, "clipvalue": 0.1}
"""Clips that a group may have of which an auxiliary optimizer updates a part, with bounds."""


def of_muon(**clip):
    """Returns a config of Muon with a step of its own kind for the rest, and a group of both."""
    muon = {"auxiliary": {"type": "sgd", "sgd": {"momentum": 0.0}}, "weight_decay": 0.0}
    return OptimizationConfig(
        {
            "optimizer": {"type": "muon", "muon": muon},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": RATE}},
            "param_groups": [{"match": "^(body|head)", "name": "own", **clip}],
        }
    )


def clipped_before(kind, gradients):
    """Returns the gradients of each step, those of the group clipped as `of_muon` has it."""
    own = [
        {p: g for p, g in grads.items() if p.startswith(("body", "head"))} for grads in gradients
    ]
    clips = [clipped(kind, grads, OF_MUON[kind]) for grads in own]
    return [{**grads, **after} for grads, after in zip(gradients, clips, strict=True)]


def problem(seed=3, steps=STEPS):
    """Returns initial weights and the gradients of each step, in which some bounds are met."""
    random = np.random.default_rng(seed)
    initial = {path: random.normal(0, 0.3, shape) for path, shape in SHAPES.items()}
    grads = [
        {path: random.normal(0, 1.0, shape) for path, shape in SHAPES.items()} for _ in range(steps)
    ]
    return initial, grads


def bound_at(step):
    return FIRST + (LAST - FIRST) * min(step, STEPS - 2) / (STEPS - 2)


def clipped(kind, gradients, bound):
    """Returns gradients by path after one clip, with its norm over all of them."""
    if kind in ("global_clipnorm", "gradient_clip_norm"):
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        return {path: g * min(1.0, bound / norm) for path, g in gradients.items()}
    if kind == "clipnorm":
        norms = {path: np.sqrt((g**2).sum()) for path, g in gradients.items()}
        return {path: g * min(1.0, bound / norms[path]) for path, g in gradients.items()}
    return {path: np.clip(g, -bound, bound) for path, g in gradients.items()}


def clipped_by_group(kind, gradients, bound, groups=True):
    """Returns gradients after the clips of `GROUPS`, and those of all after a clip of `kind`."""
    head = {p: g for p, g in gradients.items() if p.startswith("head")} if groups else {}
    bias = {p: g for p, g in gradients.items() if "bias" in p} if groups else {}
    tail = {p: g for p, g in gradients.items() if p.startswith("tail")} if groups else {}
    rest = {p: g for p, g in gradients.items() if p not in {**head, **bias, **tail}}
    return {
        **clipped("global_clipnorm", head, 0.5),
        **clipped("clipvalue", bias, 0.05),
        **tail,
        **clipped(kind, rest, bound),
    }


def expected(kind, initial, gradients, groups=True, schedule=True):
    """Returns the weights after plain steps of clipped gradients, in float64."""
    weights = {path: w.copy() for path, w in initial.items()}
    for step, grads in enumerate(gradients):
        bound = bound_at(step) if schedule else FIRST
        for path, g in clipped_by_group(kind, grads, bound, groups).items():
            if kind == "gradient_clip_norm":  # Adam of no memory
                g = g / (np.abs(g) + 1.0)
            weights[path] -= RATE * g
    return weights


def norm_of(gradients):
    return np.sqrt(sum((g**2).sum() for g in gradients.values()))
