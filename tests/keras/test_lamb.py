import numpy as np
import pytest

from optimization.optimizers import LAMB
from tests.keras.common import (
    STEPS,
    TableSchedule,
    final_weights,
    problem,
    reference_weights,
    relative_error,
)

RATES = [0.01 * (1 + step % 5) for step in range(STEPS)]
BETA_1, BETA_2, EPSILON, DECAY = 0.85, 0.99, 1e-4, 0.1


def reference(decays, adapts):
    def update(path, w, g, t, slots):
        m = slots["m"] = BETA_1 * slots.get("m", 0) + (1 - BETA_1) * g
        v = slots["v"] = BETA_2 * slots.get("v", 0) + (1 - BETA_2) * g**2
        u = (m / (1 - BETA_1**t)) / (np.sqrt(v / (1 - BETA_2**t)) + EPSILON)
        u = u + DECAY * w * decays(path)
        ratio = np.linalg.norm(w.ravel()) / np.linalg.norm(u.ravel()) if adapts(path) else 1.0
        return w - RATES[t - 1] * ratio * u

    return update


def is_kernel(path):
    return "kernel" in path


@pytest.mark.parametrize(
    ("exclusions", "decays", "adapts"),
    [
        ({}, lambda path: True, lambda path: True),
        ({"exclude_from_weight_decay": ["kernel"]}, lambda p: not is_kernel(p), None),
        (
            {"exclude_from_weight_decay": ["kernel"], "exclude_from_layer_adaptation": []},
            lambda path: not is_kernel(path),
            lambda path: True,
        ),
        (
            {"exclude_from_layer_adaptation": ["kernel"]},
            lambda path: True,
            lambda path: not is_kernel(path),
        ),
    ],
    ids=["none", "adaptation follows decay", "all adapt", "adaptation alone"],
)
def test_equals_the_formula(exclusions, decays, adapts):
    optimizer = LAMB(
        TableSchedule(RATES),
        beta_1=BETA_1,
        beta_2=BETA_2,
        epsilon=EPSILON,
        weight_decay_rate=DECAY,
        **exclusions,
    )
    initial, gradients = problem()
    expected = reference_weights(reference(decays, adapts or decays), initial, gradients)
    # 10 float32 steps, each of which rounds by 1e-7 at most.
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 1e-6


def test_ratio_is_one_where_a_norm_is_zero():
    initial = {"zero/kernel": np.zeros((2, 2), "float32"), "still/kernel": np.ones(2, "float32")}
    gradients = [
        {"zero/kernel": np.ones((2, 2), "float32"), "still/kernel": np.zeros(2, "float32")}
    ]
    weights = final_weights(LAMB(0.1), initial, gradients)
    # Adam's first step is lr * sign(g), to the rounding of the bias corrections.
    np.testing.assert_allclose(weights["zero/kernel"], -0.1, rtol=1e-4)


def test_no_update_no_step():
    initial = {"still/kernel": np.ones(2, "float32")}
    weights = final_weights(LAMB(0.1), initial, [{"still/kernel": np.zeros(2, "float32")}])
    np.testing.assert_array_equal(weights["still/kernel"], initial["still/kernel"])


def test_a_pattern_that_matches_nothing_is_an_error_at_build():
    initial, gradients = problem(steps=1)
    for argument in ("exclude_from_weight_decay", "exclude_from_layer_adaptation"):
        with pytest.raises(ValueError, match=f"{argument}.*'layernorm'"):
            final_weights(LAMB(**{argument: ["layernorm"]}), initial, gradients)


def test_config_round_trip():
    optimizer = LAMB(
        0.1, 0.8, 0.9, 1e-3, 0.01, ["bias"], exclude_from_layer_adaptation=[], name="mine"
    )
    config = optimizer.get_config()
    assert config["exclude_from_layer_adaptation"] == []
    assert LAMB.from_config(config).get_config() == config
