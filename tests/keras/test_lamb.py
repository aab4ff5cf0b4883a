import numpy as np
import pytest

from optimization.optimizers import LAMB
from tests.keras.common import (
    final_weights,
    problem,
)


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
