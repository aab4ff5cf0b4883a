import numpy as np
import pytest

from optimization.optimizers import AdamWeightDecay
from tests.keras.common import (
    SHAPES,
    STEPS,
    TableSchedule,
    final_weights,
    problem,
    relative_error,
)
from tests.references import weights_of

RATES = [0.01 * (1 + step % 5) for step in range(STEPS)]
BETA_1, BETA_2, EPSILON, DECAY = 0.85, 0.99, 1e-3, 0.3


def reference(decays, amsgrad):
    def update(path, w, g, t, slots):
        lr = RATES[t - 1]
        w = w - lr * DECAY * w * decays(path)
        m = slots["m"] = BETA_1 * slots.get("m", 0) + (1 - BETA_1) * g
        v = slots["v"] = BETA_2 * slots.get("v", 0) + (1 - BETA_2) * g**2
        if amsgrad:
            v = slots["max"] = np.maximum(slots.get("max", 0), v)
        step = lr * np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        return w - step * m / (np.sqrt(v) + EPSILON)

    return update


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(
    ("include", "exclude", "decays"),
    [
        (None, None, lambda path: True),
        (None, ["bias", "norm"], lambda path: "bias" not in path and "norm" not in path),
        (["kernel$"], None, lambda path: path.endswith("kernel")),
        (["gamma"], ["norm"], lambda path: "norm" not in path or "gamma" in path),
    ],
    ids=["all", "exclude", "only include", "include wins"],
)
def test_equals_the_formula(include, exclude, decays, amsgrad):
    optimizer = AdamWeightDecay(
        TableSchedule(RATES),
        beta_1=BETA_1,
        beta_2=BETA_2,
        epsilon=EPSILON,
        amsgrad=amsgrad,
        weight_decay_rate=DECAY,
        include_in_weight_decay=include,
        exclude_from_weight_decay=exclude,
    )
    initial, gradients = problem()
    expected = weights_of(reference(decays, amsgrad), initial, gradients)
    # 10 float32 steps: rounding of the bias corrections at 1e-7 / (1 - beta_2) dominates.
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 3e-6


def test_without_a_rate_nothing_decays():
    initial, gradients = problem()
    plain = final_weights(AdamWeightDecay(0.01), initial, gradients)
    included = AdamWeightDecay(0.01, include_in_weight_decay=["kernel"])
    assert relative_error(final_weights(included, initial, gradients), plain) == 0


def test_a_pattern_that_matches_nothing_is_an_error_at_build():
    optimizer = AdamWeightDecay(exclude_from_weight_decay=["LayerNorm"])
    initial, gradients = problem(steps=1)
    with pytest.raises(ValueError, match="'LayerNorm'"):
        final_weights(optimizer, initial, gradients)


def test_an_invalid_pattern_is_an_error_at_once():
    with pytest.raises(ValueError, match="include_in_weight_decay"):
        AdamWeightDecay(include_in_weight_decay=["(", "kernel"])


def test_config_keeps_the_patterns():
    optimizer = AdamWeightDecay(
        weight_decay_rate=0.1,
        include_in_weight_decay=["kernel"],
        exclude_from_weight_decay=["bias", "norm"],
    )
    again = AdamWeightDecay.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["exclude_from_weight_decay"] == ["bias", "norm"]


def test_state_is_two_moments_for_each_variable():
    optimizer = AdamWeightDecay()
    final_weights(optimizer, *problem(steps=1))
    # Besides iterations and learning rate.
    assert len(optimizer.variables) == 2 + 2 * len(SHAPES)
