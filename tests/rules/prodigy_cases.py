"""Training by `prodigy` in which the estimate grows, which all frameworks are compared by."""

import numpy as np

from optimization.rules.prodigy import ProdigyConfig
from tests.references import update_of, weights_of
from tests.rules import contracts

STEPS = 16
CASES = {
    "usual": {},
    "decay": {"weight_decay": 0.1, "exclude_from_weight_decay": ("bias",)},
    "coupled decay": {"weight_decay": 0.1, "decoupled_weight_decay": False},
    "bias": {"use_bias_correction": True, "d_coef": 3.0},
    "safeguard": {"use_bias_correction": True, "safeguard_warmup": True, "d_coef": 8.0, "d0": 1e-3},
    "limited": {"growth_rate": 1.3, "beta_3": 0.9, "d_coef": 1.0},
}
RATE = 0.75


def section_of(name):
    return ProdigyConfig({"d_coef": 0.5, "d0": 1e-4, **CASES[name]})


def problem(shapes=contracts.SHAPES, dtype="float64"):
    """Returns weights, and gradients that have a direction in common."""
    initial, gradients = contracts.problem(shapes, STEPS, goes_somewhere=True)
    single = [{path: g.astype(dtype) for path, g in step.items()} for step in gradients]
    return {path: w.astype(dtype) for path, w in initial.items()}, single


def expected(section, initial, gradients):
    return weights_of(update_of("prodigy", section, lambda t: RATE), initial, gradients)


def assert_moved(weights, initial):
    """Raises unless the estimate has grown by much, so that it is what is compared."""
    moved = [np.abs(weights[path] - initial[path]).max() for path in initial]
    assert max(moved) > 0.05, max(moved)
