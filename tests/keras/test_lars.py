import pytest

from optimization.optimizers import LARS
from tests.keras.common import (
    final_weights,
    problem,
    relative_error,
)
from tests.references import weights_of

MOMENTUM = 0.8


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
    expected = weights_of(update, initial, gradients)
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 2e-6


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="^nesterov: needs `momentum`"):
        LARS(momentum=0.0, nesterov=True)


def test_config_round_trip():
    optimizer = LARS(0.1, 0.8, 0.02, 0.1, True, False, ["bias"], ["norm"], name="mine")
    config = optimizer.get_config()
    assert config["exclude_from_layer_adaptation"] == ["norm"]
    assert LARS.from_config(config).get_config() == config
