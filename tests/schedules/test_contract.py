"""What holds for every registered learning rate and warmup, a new one included."""

import json
import pickle

import keras
import numpy as np
import pytest

from optimization.schedules import LR_CLS, WARMUP_CLS, LrConfig, WarmupConfig, curve
from optimization.schedules.keras_schedules import build_schedule, schedule_class
from tests.schedules.common import (
    RTOL,
    T,
    keras_values,
    lr_config,
    lr_examples,
    lr_examples_without_warmup,
    warmup_config,
    warmup_examples,
)

# Around every boundary of the examples, and far past their end.
STEPS = sorted(
    {0, 1, 2, 33, 10 * T, 10 * T + 1, 2**24}
    | {b + d for b in (50, 100, 150, 250, 300, 400, 450, 598, 600, 900, T) for d in (-1, 0, 1)}
)
LRS = [pytest.param(config, id=name) for name, config in lr_examples()]
WITHOUT_WARMUP = [pytest.param(config, id=name) for name, config in lr_examples_without_warmup()]
WARMUPS = [pytest.param(config, id=name) for name, config in warmup_examples()]
# Each learning rate with warmups of every type and of every mode, in other pairs for the next one.
MODES = len(WARMUPS) // len(WARMUP_CLS)
PAIRS = [
    (rate, WARMUPS[turn * MODES + (turn + number) % MODES])
    for number, rate in enumerate(WITHOUT_WARMUP)
    for turn in range(len(WARMUP_CLS))
]


def assert_same(actual, expected):
    # Relative to the rate, or to a tenth of the highest rate where terms of that size cancel.
    np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=0.1 * RTOL * np.max(expected))


@pytest.mark.parametrize("config", LRS)
def test_finite_and_not_negative_also_far_past_the_end(config):
    values = curve(config, None, [*STEPS, 10**9, 10**12])
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    late = values[len(STEPS) - 3 :]
    assert (late <= values[: len(STEPS) - 3].max()).all()


@pytest.mark.parametrize("config", LRS)
def test_curve_keeps_the_shape(config):
    values = curve(config, None, STEPS)
    assert values.dtype == np.float64
    assert curve(config, None, 33) == values[STEPS.index(33)]
    assert curve(config, None, []).shape == (0,)
    pairs = np.reshape(STEPS[:20], (10, 2))
    np.testing.assert_array_equal(curve(config, None, pairs), values[:20].reshape(10, 2))


@pytest.mark.parametrize("config", [c for c in LRS if "offset" in c.values[0].field_names()])
def test_offset_moves_the_schedule_and_holds_its_first_value(config):
    moved = config.replace(offset=config.offset + 40)
    values = curve(config, None, range(500))
    np.testing.assert_array_equal(curve(moved, None, range(540))[40:], values)
    np.testing.assert_array_equal(curve(moved, None, range(40)), np.full(40, values[0]))


@pytest.mark.parametrize(
    ("config", "warmup"),
    [
        pytest.param(*rate.values, *warmup.values, id=f"{rate.id}-{warmup.id}")
        for rate, warmup in PAIRS
    ],
)
def test_keras_and_numpy_agree(config, warmup):
    schedule = build_schedule(config, warmup)
    expected = curve(config, warmup, STEPS)
    assert_same(keras_values(schedule, STEPS), expected)
    np.testing.assert_array_equal(schedule.curve(STEPS), expected)


@pytest.mark.parametrize("config", LRS)
def test_keras_and_numpy_agree_without_warmup(config):
    schedule = LR_CLS[_type(LR_CLS, config)](**config.as_dict())
    assert_same(keras_values(schedule, STEPS), curve(config, None, STEPS))


def _type(registry, config):
    return next(name for name in registry if registry.config_class(name) is type(config))


def _round_trips(schedule):
    serialized = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    return [
        type(schedule).from_config(schedule.get_config()),
        keras.optimizers.schedules.deserialize(serialized),
        pickle.loads(pickle.dumps(schedule)),
    ]


@pytest.mark.parametrize("config", LRS)
def test_learning_rate_round_trip(config):
    moved = config.replace(offset=7) if "offset" in config.field_names() else config
    schedule = schedule_class(type(moved))(**moved.as_dict())
    for other in _round_trips(schedule):
        assert type(other) is type(schedule)
        assert other.config == moved
        np.testing.assert_array_equal(keras_values(other, STEPS), keras_values(schedule, STEPS))


@pytest.mark.parametrize("warmup", WARMUPS)
def test_warmup_round_trip(warmup):
    schedule = build_schedule(lr_config("cosine", offset=7), warmup)
    for other in _round_trips(schedule):
        assert type(other) is type(schedule)
        assert other.config == warmup
        assert other.after_warmup_lr_sched.config == schedule.after_warmup_lr_sched.config
        np.testing.assert_array_equal(keras_values(other, STEPS), keras_values(schedule, STEPS))


@pytest.mark.parametrize(
    ("registry", "make", "oneof"),
    [(LR_CLS, lr_config, LrConfig), (WARMUP_CLS, warmup_config, WarmupConfig)],
)
def test_classes_and_oneofs_know_every_type(registry, make, oneof):
    names = set()
    for name in registry:
        cls = registry[name]
        assert issubclass(cls, keras.optimizers.schedules.LearningRateSchedule)
        names.add(keras.saving.get_registered_name(cls))
        config = make(name)
        chosen = oneof({"type": name, name: config.as_dict()})
        assert chosen.get() == config
        assert oneof.from_json(chosen.to_json()) == chosen
    assert len(names) == len(registry)
