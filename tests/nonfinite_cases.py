"""One extraordinary gradient among ordinary ones: what must come of it, with every framework."""

import math

import numpy as np

from tests.rules import contracts

SHAPES = {"embedding": (7, 4), "middle": (16, 12), "head": (12, 3), "bias": (12,)}
WATCHED = "middle"  # whose gradient is extraordinary
BEFORE, AFTER = 3, 3  # ordinary updates
SIZES = (0.0, 1e-40, 1e-30, 1.0, 1e15, 1e30, 1e38, math.inf, math.nan)
KINDS = contracts.classes()


def arrays(seed, scale=0.5):
    """Returns arrays of `SHAPES`, no entry larger than 1 nor near 0."""
    random = np.random.default_rng(seed)
    signs = {name: random.choice([-1.0, 1.0], shape) for name, shape in SHAPES.items()}
    return {
        name: np.float32(scale * sign * random.uniform(0.4, 1.0, sign.shape))
        for name, sign in signs.items()
    }


def gradients(size):
    """Returns the gradients of each update, of which one has this size."""
    found = [arrays(100 + step) for step in range(BEFORE + 1 + AFTER)]
    with np.errstate(invalid="ignore", over="ignore"):
        one = np.float32(2.0) * found[BEFORE][WATCHED]  # up to 1
        found[BEFORE][WATCHED] = (one.astype("float64") * size).astype("float32")
    return found


def section_of(kind, **fields):
    """Returns the section of a type, without the clips that it has by itself."""
    section = contracts.section_of(kind, {})
    clips = {"gradient_clip_norm": 0.0, "global_clipnorm": None}
    off = {name: value for name, value in clips.items() if getattr(section, name, None)}
    return {"type": kind, kind: {**off, **fields}}


def config_of(kind, **fields):
    """Returns what makes an `OptimizationConfig` of a type."""
    found = {"optimizer": section_of(kind, **fields)}
    if contracts.section_of(kind, {}).own_learning_rate() is None:
        found["learning_rate"] = {"type": "constant", "constant": {"learning_rate": 0.01}}
    return found


def is_limited(kind):
    """Says whether a rule can't hold each finite gradient of `WATCHED`."""
    return math.isfinite(contracts.section_of(kind, {}).largest_gradient)


def check(kind, train, keeps_infinite=False):
    """Raises unless the outcome of each size is the one of docs/nonfinite.md.

    Args:
        kind: The type.
        train: Returns the weights `WATCHED` after each update, and all state by name, of a size.
        keeps_infinite: Whether a second moment may be infinite, and its weights stand still.
    """
    runs = {size: train(size) for size in SIZES}
    steps = {}
    for size, (weights, state) in runs.items():
        with np.errstate(invalid="ignore", over="ignore"):
            steps[size] = weights[BEFORE].astype("float64") - weights[BEFORE - 1]
        if not math.isfinite(size):
            assert not np.isfinite(weights[-1]).all(), f"{size} is lost in silence"
            continue
        assert np.isfinite(weights[-1]).all(), size
        if size >= 1e30 and keeps_infinite:
            assert (weights[-1] == weights[BEFORE - 1]).all(), size
        else:
            bad = [n for n, x in state.items() if not np.isfinite(x).all()]
            assert bad == [], size
    usual = np.abs(steps[1.0]).max()
    if kind == "lars":  # whose step does not depend on the size
        np.testing.assert_allclose(steps[1e-30], steps[1.0], rtol=1e-5)
    else:
        np.testing.assert_allclose(steps[1e-30], steps[0.0], atol=1e-6 * usual)
        np.testing.assert_allclose(steps[1e-40], steps[0.0], atol=1e-6 * usual)
    if kind == "radam":  # its first steps are along the gradient, of which the bound is left
        np.testing.assert_allclose(steps[1e38], steps[1e30], rtol=1e-5)
        assert (np.abs(steps[1e30]) > 100 * np.abs(steps[1e15])).all()
    elif is_limited(kind) and not keeps_infinite:
        # There entries weigh otherwise, once they are all the same.
        if "adafactor" not in kind and kind != "soap":
            np.testing.assert_allclose(steps[1e30], steps[1e15], rtol=1e-3, atol=1e-3 * usual)
        # Muon's entries weigh otherwise too.
        assert np.abs(steps[1e38]).max() <= 2 * max(np.abs(steps[1e15]).max(), usual)
