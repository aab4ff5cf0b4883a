import math

import pytest

from optimization import ConfigError, OptimizationConfig
from optimization.configs.float32 import in_float32


def test_what_float32_holds():
    assert in_float32(0.5) == 0.5
    assert in_float32(3.4028235e38) == 2.0**128 - 2.0**104
    assert in_float32(3.5e38) == math.inf
    assert in_float32(-1e39) == -math.inf
    assert in_float32(1e-45) > 0
    assert in_float32(1e-46) == 0
    assert math.isnan(in_float32(math.nan))


@pytest.mark.parametrize(
    ("params", "place"),
    [
        (
            {"learning_rate": {"type": "constant", "constant": {"learning_rate": 1e39}}},
            "learning_rate.constant.learning_rate",
        ),
        (
            {"learning_rate": {"type": "stepwise", "stepwise": {"values": [0.1, 1e39]}}},
            "learning_rate.stepwise.values",
        ),
        ({"warmup": {"linear": {"warmup_learning_rate": 1e39}}}, "warmup.linear.warmup_learning"),
        ({"param_groups": [{"match": "x", "learning_rate_multiplier": 1e39}]}, "multiplier"),
        ({"schedules": {"beta_1": {"linear": {"end_learning_rate": 1e39}}}}, "end_learning_rate"),
        ({"optimizer": {"adam": {"weight_decay": 1e39}}}, "optimizer.adam.weight_decay"),
    ],
)
def test_no_number_that_trains_is_infinite_in_float32(params, place):
    with pytest.raises(ConfigError, match=rf"{place}.*: must be finite in float32, .*got 1e\+39"):
        OptimizationConfig(params)
