"""What `lr_scaling` scales: the peak alone, or the floor and the start of the warmup with it."""

import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig, OptimizerFactory
from optimization.configs.group_config import LrScalingConfig
from optimization.configs.rate_curve import curve_of
from optimization.group_rows import group_rows

EVERYTHING = ["peak", "floor", "warmup_start"]
BATCHES = {"base_batch_size": 256, "global_batch_size": 1024}
WARMUP = {
    "type": "linear",
    "linear": {"warmup_steps": 10, "mode": "delay", "warmup_learning_rate": 0.01},
}


def config(rate, scales=("peak",), warmup=None, batches=BATCHES, **sections):
    kind, fields = rate
    return OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "learning_rate": {"type": kind, kind: fields},
            "warmup": warmup or {},
            "lr_scaling": {**batches, "scales": list(scales)},
            **sections,
        }
    )


def rates(made, steps):
    return OptimizerFactory(made).learning_rate_curve(steps)


COSINE = ("cosine", {"initial_learning_rate": 0.1, "min_learning_rate": 0.02, "decay_steps": 100})


@pytest.mark.parametrize(
    ("scales", "start", "floor"),
    [
        (EVERYTHING, 0.04, 0.08),
        (["peak"], 0.01, 0.02),
        (["peak", "floor"], 0.01, 0.08),
        (["warmup_start", "peak"], 0.04, 0.02),
    ],
)
def test_what_is_left_out_stays_as_it_is_written(scales, start, floor):
    found = rates(config(COSINE, scales, WARMUP), [0, 5, 10, 60, 110, 1000])
    middle, half = (start + 0.4) / 2, (0.4 + floor) / 2
    np.testing.assert_allclose(found, [start, middle, 0.4, half, floor, floor], rtol=1e-15)


def test_everything_is_scaled_unless_it_is_said():
    assert LrScalingConfig().scales == tuple(EVERYTHING)
    usual = config(COSINE, EVERYTHING, WARMUP)
    steps = np.arange(120)
    plain = rates(usual.replace(lr_scaling=None), steps)
    np.testing.assert_array_equal(rates(usual, steps), 4 * plain)


LINEAR = {"initial_learning_rate": 0.1, "end_learning_rate": 0.02, "decay_steps": 100}
PHASES = {
    "phases": [
        {"until": 100, "type": "linear", "linear": LINEAR},
        {"until": 200, "join": True, "type": "linear", "linear": {"min_learning_rate": 0.01}},
    ]
}


@pytest.mark.parametrize(
    ("rate", "at_200"),
    [
        (("linear", LINEAR), 0.02),
        (("polynomial", {**LINEAR, "power": 2.0}), 0.02),
        (("exponential", {"initial_learning_rate": 0.1, "decay_rate": 1e-3,
                          "decay_steps": 100, "min_learning_rate": 0.02}), 0.02),
        (("inverse_sqrt", {"initial_learning_rate": 0.1, "timescale": 1.0,
                           "min_learning_rate": 0.05}), 0.05),
        (("hf_polynomial", {"initial_learning_rate": 0.1, "lr_end": 0.02,
                            "num_training_steps": 100}), 0.02),
        (("hf_cosine_with_min_lr", {"initial_learning_rate": 0.1, "min_lr": 0.02,
                                    "num_training_steps": 200}), 0.02),
        (("warmup_stable_decay", {"initial_learning_rate": 0.1, "stable_steps": 50,
                                  "decay_steps": 50, "min_learning_rate": 0.02,
                                  "decay_type": "exponential"}), 0.02),
        (("sequence", PHASES), 0.01),
        # A line up: its end is the peak.
        (("linear", {**LINEAR, "end_learning_rate": 0.3}), 1.2),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_the_floor_of_each_type_stays(rate, at_200):
    first, last = rates(config(rate), [0, 200])
    assert (first, last) == pytest.approx((0.4, at_200), rel=1e-14)


def test_a_joined_phase_starts_where_the_one_before_ended():
    # From 0.4 to 0.02, and from there to 0.01.
    found = rates(config(("sequence", PHASES)), [0, 50, 100, 150, 200])
    np.testing.assert_allclose(found, [0.4, 0.21, 0.02, 0.015, 0.01], rtol=1e-14)


def test_a_group_with_a_rate_of_its_own_is_scaled_by_the_same():
    group = {
        "match": "bias",
        "learning_rate": {"type": "linear", "linear": LINEAR},
        "warmup": WARMUP,
    }
    made = config(COSINE, param_groups=[group])
    curve = curve_of(made, made.param_groups[0])
    assert curve.values([0, 10, 200]) == pytest.approx([0.01, 0.4, 0.02], rel=1e-14)
    (row, of_all) = group_rows(made, {"bias": (3,), "kernel": (3, 3)})
    assert (row.learning_rate, row.highest_rate) == pytest.approx((0.01, 0.4), rel=1e-14)
    assert of_all.highest_rate == pytest.approx(0.4, rel=1e-14)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scales": ["floor"]}, r"lr_scaling.scales: must have 'peak'.*got \[floor\]"),
        ({"scales": []}, r"lr_scaling.scales: must have 'peak'.*got \[\]"),
        ({"scales": ["peak", "peak"]}, "lr_scaling.scales: must have each name once"),
        ({"scales": ["peak", "flor"]}, r"lr_scaling.scales\[1\]: must be one of.*got 'flor'"),
        ({"rate": ("cosine", {"initial_learning_rate": 0.1, "decay_steps": 9, "alpha": 0.1})},
         "learning_rate.cosine.alpha: is a share of the peak.*`min_learning_rate`"),
        ({"rate": ("one_cycle", {"max_learning_rate": 0.1, "total_steps": 9})},
         "learning_rate.one_cycle.final_div_factor: is a share of the peak"),
        ({"rate": ("hf_reduce_lr_on_plateau", {"initial_learning_rate": 0.1})},
         "lr_scaling.scales: must have 'floor': .*hf_reduce_lr_on_plateau` follows a metric"),
        ({"batches": {"base_batch_size": 1024, "global_batch_size": 128}},
         "learning_rate.cosine.min_learning_rate: must be <= `initial_learning_rate` times the "
         "factor of `lr_scaling`, 0.0125, got 0.02"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_told_with_its_place(changed, message):
    with pytest.raises(ConfigError, match=message):
        config(changed.pop("rate", COSINE), **changed).validate()


def test_a_share_of_a_phase_is_told_with_its_place():
    cosine = {"initial_learning_rate": 0.1, "alpha": 0.1}
    phases = {"phases": [{"until": 100, "type": "cosine", "cosine": cosine}]}
    with pytest.raises(ConfigError, match=r"learning_rate.sequence.phases\[0\].cosine.alpha: is a"):
        config(("sequence", phases)).validate()
    config(("sequence", phases), EVERYTHING).validate()
