"""The lowest rate, which every schedule that falls may have."""

import numpy as np
import pytest

from optimization import ConfigError, LrConfig, OptimizationConfig, OptimizerFactory
from optimization.schedules import LR_CLS, WarmupConfig, curve
from tests.schedules.common import T, lr_config, lr_examples

STEPS = sorted(
    {0, 1, 2, 10 * T, 10**6} | {b + d for b in (100, 200, 300, 400, 600, T) for d in (-1, 0, 1)}
)
FLOOR = 0.03
# Where it takes the place of what the formula comes down to.
ENDS = {
    "cosine": {"alpha": 0.3},
    "cosine_restarts": {"alpha": 0.3},
    "linear": {"end_learning_rate": FLOOR},
    "polynomial": {"end_learning_rate": FLOOR},
    "warmup_stable_decay": {"min_lr_ratio": 0.3},
}
# What has a lowest rate that must be given, what is constant, and what is made of others.
WITHOUT = {"constant", "hf_constant", "hf_greedy", "hf_reduce_lr_on_plateau", "sequence"}
OWN = {"hf_cosine_with_min_lr", "hf_cosine_warmup_with_min_lr"}
FALLING = [
    pytest.param(config, id=name)
    for name, config in lr_examples()
    if "min_learning_rate" in config.field_names()
    and not any(getattr(config, own) for own in config.own_floors)
    and config.min_learning_rate is None
]


def kind_of(config):
    return next(name for name in LR_CLS if LR_CLS.config_class(name) is type(config))


def test_every_type_that_falls_has_it():
    has = {n for n in LR_CLS if "min_learning_rate" in LR_CLS.config_class(n).field_names()}
    ours = {n for n in LR_CLS if LR_CLS.config_class(n).__module__.startswith("optimization.")}
    assert ours - has == WITHOUT
    tested = {kind_of(case.values[0]) for case in FALLING}
    assert ours - WITHOUT - OWN <= tested | set(ENDS) | {"hf_polynomial"}


@pytest.mark.parametrize("config", FALLING)
def test_no_rate_is_below_it_but_in_a_warmup(config):
    kind, warmup = kind_of(config), getattr(config, "num_warmup_steps", 0)
    floored = config.replace(min_learning_rate=0.004 if kind == "relative_step" else FLOOR)
    floor = floored.min_learning_rate
    found, plain = curve(floored, None, STEPS), curve(config, None, STEPS)
    late = np.asarray(STEPS) >= warmup
    np.testing.assert_array_equal(found[~late], plain[~late])
    if kind in ENDS:
        expected = curve(config.replace(**ENDS[kind]), None, STEPS)
    else:
        expected = np.maximum(plain, floor)
    np.testing.assert_allclose(found[late], expected[late], rtol=1e-12)
    assert found[late].min() >= floor * (1 - 1e-12)


def test_inverse_sqrt_stays_at_it():
    config = lr_config(
        "inverse_sqrt", initial_learning_rate=1.0, timescale=100, min_learning_rate=0.25
    )
    assert curve(config, None, [100, 400, 1599, 1600, 1601, 10**9]).round(4).tolist() == [
        *(1.0, 0.5, 0.2501),
        *(0.25, 0.25, 0.25),
    ]


def test_a_warmup_is_not_bound_to_it():
    config = lr_config("cosine", min_learning_rate=FLOOR)
    warmup = WarmupConfig(type="linear", linear={"warmup_steps": 100}).get()
    assert curve(config, warmup, [0, 10]).tolist() < [FLOOR, FLOOR]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("cosine", {"alpha": 0.1}, "cannot be set beside `alpha`, which says the lowest rate too"),
        ("linear", {"end_learning_rate": 0.1}, "cannot be set beside `end_learning_rate`"),
        ("polynomial", {"end_learning_rate": 0.1}, "cannot be set beside `end_learning_rate`"),
        ("warmup_stable_decay", {"min_lr_ratio": 0.1}, "cannot be set beside `min_lr_ratio`"),
        ("hf_polynomial", {"lr_end": 0.01}, "cannot be set beside `lr_end`"),
        ("hf_cosine_with_min_lr", {"min_lr": 0.01}, "cannot be set beside `min_lr`"),
        (
            "hf_cosine_with_min_lr",
            {"min_lr": None, "min_lr_rate": 0.1},
            "cannot be set beside `min_lr_rate`",
        ),
        (
            "inverse_sqrt",
            {"initial_learning_rate": 0.01},
            "must be <= `initial_learning_rate` 0.01, got 0.03",
        ),
        ("one_cycle", {"max_learning_rate": 0.01}, "must be <= `max_learning_rate` 0.01"),
    ],
)
def test_a_second_floor_and_one_above_the_rate_are_refused(kind, settings, message):
    config = lr_config(kind, **settings, min_learning_rate=FLOOR)
    with pytest.raises(ConfigError) as error:
        curve(config, None, [0])
    assert str(error.value).startswith(f"{kind}.min_learning_rate: {message}")


def test_it_is_a_number_above_0_and_unknown_where_nothing_falls():
    with pytest.raises(ConfigError, match="min_learning_rate: must be >= 0, got -0.1"):
        lr_config("exponential", min_learning_rate=-0.1)
    with pytest.raises(ConfigError, match="constant.min_learning_rate: unknown key"):
        LrConfig(type="constant", constant={"min_learning_rate": 0.1})


def test_one_that_is_not_set_is_not_written():
    config = lr_config("inverse_sqrt")
    assert "min_learning_rate" not in config.as_dict()
    floored = config.replace(min_learning_rate=FLOOR)
    assert floored.as_dict()["min_learning_rate"] == FLOOR
    assert type(config)(floored.as_dict()) == floored != config
    assert floored.replace(min_learning_rate=None) == config


def test_a_difference_tells_of_it():
    rate = {"initial_learning_rate": 0.1}
    made = [
        OptimizationConfig(
            {
                "optimizer": {"type": "sgd"},
                "learning_rate": {"type": "inverse_sqrt", "inverse_sqrt": {**rate, **floor}},
            }
        )
        for floor in ({}, {"min_learning_rate": 0.05})
    ]
    found = made[0].diff(made[1])
    (change,) = found.values
    path = "learning_rate.inverse_sqrt.min_learning_rate"
    assert change[:3] == (path, None, 0.05)
    factory = OptimizerFactory(made[1], train_steps=10**6)
    assert factory.learning_rate_curve([10**6]).tolist() == [0.05]
