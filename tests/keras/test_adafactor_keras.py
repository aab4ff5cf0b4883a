import keras
import numpy as np
import pytest

from optimization.optimizers import AdafactorKeras
from tests.keras.common import (
    TableSchedule,
    final_weights,
    problem,
    relative_error,
)
from tests.references import weights_of

SHAPES = {"a/bias": (9,), "a/kernel": (8, 6), "b/kernel": (4, 9, 5)}


def reference(rate):
    def rms(x):
        return np.sqrt((x**2).mean())

    def update(path, w, g, t, slots):
        b = 1 - t**-0.8
        squared = g**2 + 1e-30
        if g.ndim < 2:
            v = slots["v"] = b * slots.get("v", 0) + (1 - b) * squared
        else:
            rows = slots["r"] = b * slots.get("r", 0) + (1 - b) * squared.mean(-1, keepdims=True)
            columns = slots["c"] = b * slots.get("c", 0) + (1 - b) * squared.mean(-2, keepdims=True)
            v = rows * columns / rows.mean(-2, keepdims=True)
        u = g / np.sqrt(v)
        u = u / max(1, rms(u))
        return w - rate(t) * max(1e-3, rms(w)) * u

    return update


@pytest.mark.parametrize(
    ("learning_rate", "relative_step", "rate"),
    [
        (0.5, True, lambda t: min(0.5, t**-0.5)),
        (0.01, True, lambda t: 0.01),
        (0.5, False, lambda t: 0.5),
        (TableSchedule([0.5]), True, lambda t: 0.5),
        (TableSchedule([0.5, 0.1]), False, lambda t: 0.5 if t == 1 else 0.1),
    ],
    ids=["capped", "below the cap", "uncapped", "schedule", "schedule uncapped"],
)
def test_relative_step_means_what_keras_documents(learning_rate, relative_step, rate):
    optimizer = AdafactorKeras(learning_rate, relative_step=relative_step)
    initial, gradients = problem(SHAPES)
    expected = weights_of(reference(rate), initial, gradients)
    # 10 float32 steps; the powers and roots of the second moment round at about 1e-7 each.
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 3e-6


def test_below_the_cap_it_is_keras():
    initial, gradients = problem(SHAPES)
    expected = final_weights(keras.optimizers.Adafactor(0.01), initial, gradients)
    actual = final_weights(AdafactorKeras(0.01), initial, gradients)
    # Keras forms V, here its factors' roots are taken apart: 10 steps of one rounding each.
    assert relative_error(actual, expected) < 2e-6
