"""A user's own learning rates and warmups: one decorator, then `type: mine` works everywhere."""

import dataclasses
import json
import pickle

import keras
import numpy as np
import pytest

from optimization.configs.base import Config, config_dataclass
from optimization.configs.errors import ConfigError
from optimization.configs.types import REQUIRED, NonNegativeFloat, PositiveInt
from optimization.schedules import (
    LR_CLS,
    WARMUP_CLS,
    BaseLrConfig,
    BaseWarmupConfig,
    LrConfig,
    WarmupConfig,
    curve,
)
from optimization.schedules.keras_schedules import build_schedule, sample
from tests.schedules.common import RTOL, keras_values, lr_config, warmup_config

STEPS = [0, 1, 4, 5, 9, 10, 11, 1000]


@pytest.fixture(autouse=True)
def registries():
    """Forgets afterwards what a test has registered."""
    before = [dict(registry._entries) for registry in (LR_CLS, WARMUP_CLS)]
    known = set(keras.saving.get_custom_objects())
    yield
    for registry, entries in zip((LR_CLS, WARMUP_CLS), before, strict=True):
        registry._entries = entries
    for name in set(keras.saving.get_custom_objects()) - known:
        del keras.saving.get_custom_objects()[name]


def _check(lr, warmup, expected):
    """Checks the curve, the Keras schedule and its round trips, and those of the oneofs."""
    np.testing.assert_allclose(curve(lr.get(), warmup.get(), STEPS), expected, rtol=2e-7)
    schedule = build_schedule(lr.get(), warmup.get())
    np.testing.assert_allclose(sample(schedule, STEPS), expected, rtol=RTOL)
    serialized = json.dumps(keras.optimizers.schedules.serialize(schedule))
    restored = keras.optimizers.schedules.deserialize(json.loads(serialized))
    assert restored.get_config() == schedule.get_config()
    np.testing.assert_array_equal(sample(restored, STEPS), sample(schedule, STEPS))
    for config in (lr, warmup):
        assert type(config)(config.as_dict()) == config
        assert type(config).from_json(config.to_json()) == config


NO_WARMUP = WarmupConfig()
LINEAR = WarmupConfig({"type": "linear", "linear": {"warmup_steps": 5}})
CONSTANT = LrConfig({"type": "constant", "constant": {"learning_rate": 0.5}})


# ---- a formula ---------------------------------------------------------------------------------


def _register_halving():
    @LR_CLS.register("halving")
    def halving(step, *, initial_learning_rate: float, decay_steps: int = 10, xp):
        """Halves the rate once."""
        return xp.where(step < decay_steps, 1.0, 0.5 * xp.ones_like(step)) * initial_learning_rate

    return halving


def test_formula():
    function = _register_halving()
    assert callable(function)
    lr = LrConfig({"type": "halving", "halving": {"initial_learning_rate": 0.25}})
    assert lr.as_dict() == {
        "type": "halving",
        "halving": {"initial_learning_rate": 0.25, "decay_steps": 10},
    }
    assert lr.halving.__doc__.startswith("Halves the rate once.\n\nAttributes:\n")
    assert "    decay_steps (integer; default 10)" in lr.halving.__doc__
    _check(lr, NO_WARMUP, [0.25] * 5 + [0.125] * 3)
    _check(lr, LINEAR, [0, 0.05, 0.2, 0.25, 0.25] + [0.125] * 3)
    schedule = LR_CLS["halving"](initial_learning_rate=0.25, decay_steps=4)
    assert type(schedule).__name__ == "HalvingLearningRate"
    np.testing.assert_allclose(keras_values(schedule, STEPS), [0.25] * 2 + [0.125] * 6, rtol=RTOL)
    assert pickle.loads(pickle.dumps(schedule)).config == schedule.config


def test_formula_errors_are_those_of_any_config():
    _register_halving()
    with pytest.raises(ConfigError, match="decay_step: unknown key; did you mean 'decay_steps'"):
        LrConfig({"type": "halving", "halving": {"decay_step": 3}})
    with pytest.raises(ConfigError, match=r"halving\.decay_steps: expected an integer"):
        LrConfig({"halving": {"decay_steps": "3"}})
    with pytest.raises(ConfigError, match=r"halving\.initial_learning_rate: a value is required"):
        curve(LrConfig({"type": "halving"}).get(), None, STEPS)
    with pytest.raises(ConfigError, match="unknown type 'halvin'; did you mean 'halving'"):
        LrConfig({"type": "halvin"})


def test_formula_with_an_offset_applies_it_itself():
    @LR_CLS.register("late")
    def late(step, rate: float = 1.0, offset: int = 0, name: str = "late_rate"):
        return rate * (step + offset)

    lr = LrConfig({"type": "late", "late": {"offset": 3}})
    assert curve(lr.get(), None, [0, 1]).tolist() == [3.0, 4.0]
    assert LR_CLS["late"]().name == "late_rate"


def test_warmup_formula():
    @WARMUP_CLS.register("square")
    def square(step, target, *, warmup_steps, boost: float = 1.0, xp):
        return boost * target * xp.square(step / warmup_steps)

    warmup = WarmupConfig({"type": "square", "square": {"warmup_steps": 10}})
    ramp = [0.0, 0.005, 0.08, 0.125, 0.405, 0.5, 0.5, 0.5]
    _check(CONSTANT, warmup, ramp)
    lr = LrConfig({"type": "linear", "linear": {"initial_learning_rate": 0.5, "decay_steps": 100}})
    warmup.square.mode = "delay"
    delayed = [0.5 * (1 - max(step - 10, 0) / 100) for step in STEPS[:-1]]
    _check(lr, warmup, ramp[:5] + delayed[5:] + [0.0])


# ---- a config dataclass ------------------------------------------------------------------------


def test_config_dataclass():
    @LR_CLS.register("fading")
    @dataclasses.dataclass
    class FadingConfig(BaseLrConfig):
        initial_learning_rate: NonNegativeFloat = REQUIRED
        decay_steps: PositiveInt = 10
        offset: int = 0

        def check(self):
            if self.decay_steps == 13:
                yield "decay_steps", "must not be 13"

        def value(self, step, xp):
            return self.initial_learning_rate / (1.0 + step / self.decay_steps)

    settings = {"initial_learning_rate": 1.0, "decay_steps": 5, "offset": 5}
    lr = LrConfig({"type": "fading", "fading": settings})
    _check(lr, NO_WARMUP, [1 / (1 + max(s - 5, 0) / 5) for s in STEPS])
    lr.fading.decay_steps = 13
    with pytest.raises(ConfigError, match=r"fading\.decay_steps: must not be 13"):
        curve(lr.get(), None, [0])


def test_warmup_dataclass():
    @WARMUP_CLS.register("half")
    @dataclasses.dataclass
    class HalfConfig(BaseWarmupConfig):
        def value(self, step, target, xp):
            return xp.full_like(step, target / 2)

    warmup = WarmupConfig({"type": "half", "half": {"warmup_steps": 5}})
    _check(CONSTANT, warmup, [0.25] * 3 + [0.5] * 5)


def test_a_config_without_formula_says_so():
    @dataclasses.dataclass
    class Empty(BaseLrConfig):
        pass

    @dataclasses.dataclass
    class EmptyWarmup(BaseWarmupConfig):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no formula: define `value`"):
        curve(Empty(), None, [0])
    with pytest.raises(NotImplementedError, match="EmptyWarmup has no formula: define `value`"):
        curve(lr_config("constant"), EmptyWarmup(warmup_steps=3), [0])


# ---- a Keras class -----------------------------------------------------------------------------


class Stairs(keras.optimizers.schedules.LearningRateSchedule):
    """Has a Python `if` on a setting, and needs integer steps."""

    def __init__(self, height: float, every: int = 10, up: bool = False):
        super().__init__()
        self.height, self.every, self.up = height, every, up

    def __call__(self, step):
        stairs = keras.ops.cast(step // self.every, "float32")
        return self.height * (1.0 + stairs) if self.up else self.height / (1.0 + stairs)

    def get_config(self):
        return {"height": self.height, "every": self.every, "up": self.up}


def test_keras_class():
    assert LR_CLS.register("stairs")(Stairs) is Stairs
    assert LR_CLS["stairs"] is Stairs
    lr = LrConfig({"type": "stairs", "stairs": {"height": 1.0}})
    assert lr.get().as_dict() == {"height": 1.0, "every": 10, "up": False}
    _check(lr, NO_WARMUP, [1, 1, 1, 1, 1, 0.5, 0.5, 1 / 101])
    _check(lr, LINEAR, [0, 0.2, 0.8, 1, 1, 0.5, 0.5, 1 / 101])
    assert curve(lr.get(), LINEAR.get(), np.reshape(STEPS, (2, 4))).shape == (2, 4)
    with pytest.raises(ConfigError, match=r"stairs\.every: expected an integer"):
        lr.override({"stairs": {"every": 0.5}})


class Held(keras.optimizers.schedules.LearningRateSchedule):
    """A warmup that has no modes and no rate of its own."""

    def __init__(self, after_warmup_lr_sched, warmup_steps: int):
        super().__init__()
        self.after, self.steps = after_warmup_lr_sched, warmup_steps

    def __call__(self, step):
        after = self.after
        if isinstance(after, keras.optimizers.schedules.LearningRateSchedule):
            return after(keras.ops.maximum(step, self.steps))
        return after

    def get_config(self):
        after = self.after
        if isinstance(after, keras.optimizers.schedules.LearningRateSchedule):
            after = keras.optimizers.schedules.serialize(after)
        return {"after_warmup_lr_sched": after, "warmup_steps": self.steps}

    @classmethod
    def from_config(cls, config):
        after = config["after_warmup_lr_sched"]
        if isinstance(after, dict):
            after = keras.optimizers.schedules.deserialize(after)
        return cls(after, config["warmup_steps"])


def test_keras_warmup_class():
    WARMUP_CLS.register("held")(Held)
    assert WARMUP_CLS["held"] is Held
    warmup = WarmupConfig({"type": "held", "held": {"warmup_steps": 5}})
    lr = LrConfig({"type": "linear", "linear": {"initial_learning_rate": 0.5, "decay_steps": 10}})
    _check(lr, warmup, [0.25, 0.25, 0.25, 0.25, 0.05, 0, 0, 0])
    warmup.held.mode = "delay"
    with pytest.raises(ConfigError, match=r"held\.mode: Held has no modes, got 'delay'"):
        warmup.validate()
    for name, value in {"counts_from": 1, "ends_on": "last", "leads_to": "peak"}.items():
        warmup = WarmupConfig({"type": "held", "held": {"warmup_steps": 5, name: value}})
        with pytest.raises(ConfigError, match=rf"held\.{name}: Held counts as it does, got "):
            warmup.validate()


def test_a_name_given_to_keras_is_kept():
    @keras.saving.register_keras_serializable("user", "Rates")
    class Rates(Stairs):
        pass

    LR_CLS.register("rates")(Rates)
    assert LR_CLS["rates"] is Rates
    assert keras.saving.get_registered_name(Rates) == "user>Rates"


# ---- what cannot be registered -----------------------------------------------------------------


@pytest.mark.parametrize(("registry", "name"), [(LR_CLS, "cosine"), (WARMUP_CLS, "linear")])
def test_a_name_is_taken_once(registry, name):
    with pytest.raises(ValueError, match=f"type '{name}' is registered already"):
        registry.register(name)


def _no_step(s: float, rate: float = 1.0):
    return s * rate


def _untyped(step, rate):
    return step * rate


def _method_name(step, override: float = 1.0):
    return step * override


class NoSchedule:
    def __init__(self, rate: float = 1.0):
        self.rate = rate


@pytest.mark.parametrize(
    ("registry", "decorated", "message"),
    [
        (LR_CLS, _no_step, "`_no_step` must take `step`"),
        (LR_CLS, _untyped, "its parameter `rate` needs a type annotation"),
        (LR_CLS, _method_name, "its parameter `override` has the name of a method"),
        (LR_CLS, NoSchedule, "NoSchedule is not a keras LearningRateSchedule"),
        (LR_CLS, Config, "Config must derive from BaseLrConfig"),
        (WARMUP_CLS, type(lr_config("cosine")), "must derive from BaseWarmupConfig"),
        (WARMUP_CLS, Stairs, "Stairs must take `after_warmup_lr_sched`"),
    ],
)
def test_what_cannot_be_registered(registry, decorated, message):
    with pytest.raises(TypeError, match=message):
        registry.register("mine")(decorated)
    assert "mine" not in registry


def _section(base, **members):
    return config_dataclass(type(base)("MineConfig", (base,), members))


@pytest.mark.parametrize(
    ("registry", "section", "message"),
    [
        (LR_CLS, _section(BaseLrConfig), r"it has no formula: define `value\(self, step, xp\)`"),
        (
            LR_CLS,
            _section(BaseLrConfig, value=lambda self, step: step),
            r"`value` must take \(self, step, xp\), it takes \(self, step\)",
        ),
        (WARMUP_CLS, _section(BaseWarmupConfig), "it has no formula: define `value"),
        (
            WARMUP_CLS,
            _section(BaseWarmupConfig, value=lambda self, step, xp: step),
            r"`value` must take \(self, step, target, xp\), it takes",
        ),
    ],
)
def test_a_section_needs_a_formula(registry, section, message):
    with pytest.raises(TypeError, match=f"'mine' cannot be registered: {message}"):
        registry.register("mine")(section)
    assert "mine" not in registry


@pytest.mark.parametrize("value", [None, "0.1", np.ones((2, 3))])
def test_a_formula_must_return_rates(value):
    section = _section(BaseLrConfig, value=lambda self, step, xp: value)
    with pytest.raises(TypeError, match=r"MineConfig must return a rate .* shape \(3,\); got "):
        curve(section(), None, [0, 1, 2])


def test_a_formula_that_returns_a_number_is_a_constant():
    section = _section(BaseLrConfig, value=lambda self, step, xp: 0.5)
    np.testing.assert_array_equal(curve(section(), None, [0, 1, 2]), [0.5, 0.5, 0.5])


def test_warmup_config_defaults_come_from_the_base():
    assert warmup_config("linear").field_names()[:2] == ["warmup_steps", "mode"]
