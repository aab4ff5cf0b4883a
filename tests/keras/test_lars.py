import numpy as np
import pytest

from optimization.optimizers import LARS
from tests.keras.common import (
    STEPS,
    TableSchedule,
    final_weights,
    problem,
    reference_weights,
    relative_error,
)

RATES = [1.0 + step % 5 for step in range(STEPS)]
MOMENTUM, EETA, DECAY = 0.8, 0.01, 0.1


def reference(decays, adapts, nesterov, classic):
    def ratio(path, w, u):
        return EETA * np.sqrt((w**2).sum() / (u**2).sum()) if adapts(path) else 1.0

    def update(path, w, g, t, slots):
        lr = RATES[t - 1] * (1 if adapts(path) else 0.01)
        g = g + DECAY * w * decays(path)
        if classic:
            g = lr * ratio(path, w, g) * g
        buffer = slots["buffer"] = MOMENTUM * slots.get("buffer", 0) + g
        u = MOMENTUM * buffer + g if nesterov else buffer
        return w - u if classic else w - lr * ratio(path, w, u) * u

    return update


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("classic", [False, True])
def test_equals_the_formula(nesterov, classic):
    optimizer = LARS(
        TableSchedule(RATES),
        momentum=MOMENTUM,
        eeta=EETA,
        weight_decay_rate=DECAY,
        nesterov=nesterov,
        classic_momentum=classic,
        exclude_from_weight_decay=["bias", "norm"],
        exclude_from_layer_adaptation=[],
    )
    initial, gradients = problem()
    update = reference(
        lambda path: "bias" not in path and "norm" not in path, lambda path: True, nesterov, classic
    )
    expected = reference_weights(update, initial, gradients)
    # 10 float32 steps, each rounded once or twice at 6e-8.
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 2e-6


@pytest.mark.parametrize("classic", [False, True])
def test_without_adaptation_it_is_momentum_sgd(classic):
    def update(path, w, g, t, slots):
        buffer = slots["buffer"] = MOMENTUM * slots.get("buffer", 0) + (0.02 if classic else 1) * g
        return w - buffer * (1 if classic else 0.02)

    optimizer = LARS(
        0.02,
        momentum=MOMENTUM,
        classic_momentum=classic,
        exclude_from_weight_decay=[".*"],
    )
    initial, gradients = problem()
    expected = reference_weights(update, initial, gradients)
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 2e-6


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="^nesterov: needs `momentum`"):
        LARS(momentum=0.0, nesterov=True)


def test_config_round_trip():
    optimizer = LARS(0.1, 0.8, 0.02, 0.1, True, False, ["bias"], ["norm"], name="mine")
    config = optimizer.get_config()
    assert config["exclude_from_layer_adaptation"] == ["norm"]
    assert LARS.from_config(config).get_config() == config
