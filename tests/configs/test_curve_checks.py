import numpy as np
import pytest

from optimization import (
    LR_CLS,
    WARMUP_CLS,
    ConfigError,
    ConfigWarning,
    OptimizationConfig,
    OptimizerFactory,
)
from optimization.configs.durations import TrainingLength

RATE = "initial_learning_rate"


@pytest.fixture
def own_types(monkeypatch):
    monkeypatch.setattr(LR_CLS, "_entries", dict(LR_CLS._entries))


def oneof(name, **values):
    return {"type": name, name: values}


def params(rate, warmup=None, optimizer=None, **others):
    return {
        "optimizer": optimizer or {"type": "sgd"},
        "learning_rate": rate,
        **({} if warmup is None else {"warmup": oneof("linear", **warmup)}),
        **others,
    }


def problems(config_params, train_steps=None):
    sized, _ = OptimizationConfig(config_params).sized(TrainingLength(train_steps))
    return sized.problems()


def one_error(config_params, train_steps=None):
    (error,), doubts = problems(config_params, train_steps)
    assert doubts == []
    return error


def doubts_of(config_params, train_steps=None):
    errors, doubts = problems(config_params, train_steps)
    assert errors == []
    return {doubt.code: f"{doubt.path}: {doubt.message}" for doubt in doubts}


SHORT = oneof("linear", initial_learning_rate=1e-3, decay_steps=100)
LONG_WARMUP = {"warmup_steps": 200}
CONSTANT = oneof("constant", learning_rate=0.1)


# ---- 0 throughout ------------------------------------------------------------------------------


@pytest.mark.parametrize("train_steps", [None, 1000])
def test_a_rate_of_0_in_every_step(train_steps):
    error = one_error(params(SHORT, LONG_WARMUP), train_steps)
    assert error.path == "warmup.linear.warmup_steps"
    assert "is 0 in every step" in error.message
    assert "the decay is over at step 100" in error.message


@pytest.mark.parametrize(
    ("rate", "warmup", "train_steps", "path"),
    [
        (CONSTANT, {"warmup_steps": 3}, 1, "warmup.linear.warmup_steps"),
        (
            oneof("hf_linear", initial_learning_rate=0.1, num_warmup_steps=3, num_training_steps=9),
            None,
            1,
            "learning_rate.hf_linear.num_warmup_steps",
        ),
        (
            oneof("stepwise", boundaries=[50], values=[0.0, 0.1]),
            None,
            50,
            "learning_rate.stepwise.values",
        ),
        (oneof("constant", learning_rate=1e-50), None, None, "learning_rate.constant.learning_"),
        (oneof("relative_step"), {"warmup_steps": 3}, 1, "warmup.linear.warmup_steps"),
    ],
    ids=["one step", "a warmup of its own", "before the boundary", "in float32", "no rate written"],
)
def test_siblings_of_a_rate_of_0(rate, warmup, train_steps, path):
    assert one_error(params(rate, warmup), train_steps).path.startswith(path)


def test_the_rate_of_a_group():
    group = {"match": "x", "learning_rate": SHORT, "warmup": oneof("linear", **LONG_WARMUP)}
    error = one_error(params(CONSTANT, param_groups=[group]))
    assert error.path == "param_groups[0].warmup.linear.warmup_steps"
    frozen = {"match": "x", "freeze": True}
    assert problems(params(CONSTANT, param_groups=[frozen])) == ([], [])


@pytest.mark.parametrize("train_steps", [None, 1000])
def test_0_may_be_asked_for(train_steps):
    for rate in (
        oneof("constant", learning_rate=0.0),
        oneof("polynomial", initial_learning_rate=0.0, end_learning_rate=0.0, decay_steps=1000),
        oneof("exponential", initial_learning_rate=0.0, decay_rate=0.9, decay_steps=10),
    ):
        assert problems(params(rate), train_steps) == ([], [])
    group = {"match": "x", "learning_rate": CONSTANT, "learning_rate_multiplier": 0.0}
    assert problems(params(CONSTANT, param_groups=[group]), train_steps) == ([], [])


def test_a_rate_that_comes_late_is_not_0(own_types):
    late = oneof("stepwise", boundaries=[5000], values=[0.0, 0.1])
    assert problems(params(late)) == ([], [])

    @LR_CLS.register("mine")
    def mine(step, *, peak: float, xp):
        return xp.where(step > 5000, peak, 0.0 * step)

    assert problems(params(oneof("mine", peak=0.1))) == ([], [])
    error = one_error(params(oneof("mine", peak=0.1)), 5000)
    assert error.path == "learning_rate.mine.peak"


# ---- infinite, NaN, negative -------------------------------------------------------------------


def test_a_rate_that_grows_beyond_float32():
    growing = oneof("exponential", initial_learning_rate=1e-3, decay_steps=10, decay_rate=2.0)
    assert problems(params(growing), 1380) == ([], [])
    error = one_error(params(growing), 1381)
    assert error.path == "learning_rate.exponential.initial_learning_rate"
    assert "must be finite in float32, it is 3.48449e+38 at step 1380" in error.message


def test_factors_count():
    huge = oneof("constant", learning_rate=1e30)
    own = {"match": "x", "learning_rate": huge, "learning_rate_multiplier": 1e9}
    error = one_error(params(CONSTANT, param_groups=[own]))
    assert error.path == "param_groups[0].learning_rate.constant.learning_rate"
    error = one_error(params(huge, param_groups=[{"match": "x", "learning_rate_multiplier": 1e9}]))
    assert error.path == "param_groups[0].learning_rate_multiplier"
    scaling = {"base_batch_size": 1, "global_batch_size": 2**40}
    error = one_error(params(huge, lr_scaling=scaling))
    assert "it is 1.09951e+42 at step 0, the factor 1.09951e+12 included" in error.message


def test_formulas_of_ones_own(own_types):
    @LR_CLS.register("pole")
    def pole(step, *, peak: float, length: int, xp):
        return peak / xp.abs(length - step)

    @LR_CLS.register("sinking")
    def sinking(step, *, peak: float, length: int, xp):
        return peak * (1.0 - step / length)

    @LR_CLS.register("rooted")
    def rooted(step, *, peak: float, xp):
        return peak * xp.sqrt(1000.0 - step)

    @LR_CLS.register("broken")
    def broken(step, *, peak: float, xp):
        raise RuntimeError("needs a framework")

    assert "it is inf at step 77" in one_error(params(oneof("pole", peak=1.0, length=77))).message
    assert problems(params(oneof("pole", peak=1.0, length=77)), 77) == ([], [])
    sinks = oneof("sinking", peak=1.0, length=100)
    assert "must be >= 0, it is -0.01 at step 101" in one_error(params(sinks), 500).message
    assert problems(params(sinks), 100) == ([], [])
    assert "it is nan at step 1001" in one_error(params(oneof("rooted", peak=1.0)), 5000).message
    errors, (doubt,) = problems(params(oneof("broken", peak=1.0)), 5000)
    assert errors == []
    assert (doubt.code, doubt.path) == ("unchecked", "learning_rate.broken.peak")
    assert doubt.message.endswith("the rate is not checked: RuntimeError: needs a framework")


def test_a_warmup_of_ones_own_that_fails(monkeypatch):
    monkeypatch.setattr(WARMUP_CLS, "_entries", dict(WARMUP_CLS._entries))

    @WARMUP_CLS.register("failing")
    def failing(step, target, *, slope: float = 1.0, xp):
        return None

    for mode in ("replace", "delay", "multiply"):
        config = params(CONSTANT) | {"warmup": oneof("failing", warmup_steps=5, mode=mode)}
        errors, (doubt,) = problems(config)
        assert errors == []
        assert (doubt.code, doubt.path) == ("unchecked", "warmup.failing.slope")
        assert "must return a rate for each step" in doubt.message


def test_formulas_of_ones_own_need_not_go_on_after_their_end(own_types):
    @LR_CLS.register("two_lines")
    def two_lines(step, *, peak: float, warmup: int, total: int, xp):
        down = peak * (total - step) / (total - warmup)
        return xp.where(step < warmup, peak * step / warmup, down)

    @LR_CLS.register("table")
    def table(step, *, rates: tuple[float, ...], each: int):
        return np.take(rates, np.asarray(step // each, "int"))

    assert problems(params(oneof("two_lines", peak=0.1, warmup=10, total=100))) == ([], [])
    assert problems(params(oneof("table", rates=[0.1], each=100))) == ([], [])
    assert problems(params(oneof("table", rates=[0.0, 0.0, 0.1], each=100))) == ([], [])
    weight_decay = {"weight_decay": oneof("table", rates=[0.1], each=100)}
    adamw = oneof("adamw", weight_decay_rate=0.1)
    assert problems(params(CONSTANT, optimizer=adamw, schedules=weight_decay)) == ([], [])


def test_curves_of_keras_classes_are_left_alone(own_types):
    keras = pytest.importorskip("keras", reason="Keras is an extra")

    @LR_CLS.register("keras_class")
    class Mine(keras.optimizers.schedules.LearningRateSchedule):
        def __init__(self, peak: float):
            self.peak = peak

        def __call__(self, step):
            raise AssertionError("called by a check")

    assert problems(params(oneof("keras_class", peak=0.1)), 100) == ([], [])


def test_hyperparameters_that_leave_their_range():
    adamw = oneof("adamw", weight_decay_rate=0.1)
    rising = oneof("linear", initial_learning_rate=0.9, end_learning_rate=1.0, decay_steps=1234)
    config = params(CONSTANT, optimizer=adamw, schedules={"beta_1": rising})
    assert problems(config, 1234) == ([], [])
    assert "`beta_1` must be < 1, got 1.0, at step 1234" in one_error(config, 2000).message
    growing = oneof("exponential", initial_learning_rate=0.1, decay_steps=1, decay_rate=2.0)
    config = params(CONSTANT, optimizer=adamw, schedules={"weight_decay": growing})
    assert "must be a finite number, got inf" in one_error(config, 200).message


# ---- doubtful ----------------------------------------------------------------------------------


def test_a_warmup_as_long_as_the_training():
    config = params(CONSTANT, {"warmup_steps": 100})
    assert doubts_of(config, 101) == {}
    (doubt,) = doubts_of(config, 100).values()
    assert doubt.startswith("warmup.linear.warmup_steps: is 100, `train_steps` 100: the rate comes")
    assert "0.099 at most, of 0.1" in doubt
    schedule_free = oneof("schedule_free_sgd", warmup_steps=100)
    assert set(doubts_of(params(CONSTANT, optimizer=schedule_free), 100)) == {"warmup-too-long"}


def test_a_warmup_that_outlasts_the_decay():
    rate = oneof("polynomial", initial_learning_rate=1e-2, decay_steps=100)
    (doubt,) = doubts_of(params(rate, {"warmup_steps": 100}), 1000).values()
    assert (
        "is 100, and the decay is over at step 100: the rate comes to 0.0001 at most, of" in doubt
    )
    assert set(doubts_of(params(rate, {"warmup_steps": 100}))) == {"warmup-outlasts-decay"}
    assert doubts_of(params(rate, {"warmup_steps": 100, "mode": "delay"}), 200) == {}


def test_a_peak_under_half_of_what_was_asked_for():
    assert doubts_of(params(SHORT, {"warmup_steps": 50}), 100) == {}
    (doubt,) = doubts_of(params(SHORT, {"warmup_steps": 51}), 100).values()
    assert "the rate comes to 0.00049 at most, of 0.001" in doubt
    assert set(doubts_of(params(SHORT, {"warmup_steps": 51}))) == {"low-peak"}
    assert doubts_of(params(SHORT, {"warmup_steps": 51, "mode": "delay"}), 151) == {}
    power = oneof("power", initial_learning_rate=1.0)  # whose first rate nobody asks for
    assert doubts_of(params(power, {"warmup_steps": 10000}), 100000) == {}
    cycle = oneof("one_cycle", max_learning_rate=0.1, total_steps=100)
    (doubt,) = doubts_of(params(cycle, {"warmup_steps": 99}), 100).values()
    assert "of 0.1;" in doubt  # what it comes to between the steps that are looked at


@pytest.mark.parametrize(
    ("rate", "train_steps", "words"),
    [
        (
            oneof("polynomial", initial_learning_rate=1e-4, decay_steps=25000, end_learning_rate=0),
            50000,
            ("25000, `train_steps` is 50000: the rate is 0 for the last 25000", "write 50000 or"),
        ),
        (
            oneof("cosine", initial_learning_rate=0.1, decay_steps=800, alpha=0.1),
            1000,
            ("the rate stays 0.01 for the last 200 steps; write 1000", "unless that is meant"),
        ),
        (
            oneof("hf_cosine", initial_learning_rate=0.1, num_training_steps=500),
            1000,
            ("the rate then goes on, to 0.0999", "write 1000 or leave it out"),
        ),
        (oneof("stepwise", boundaries=[9], values=[0.1, 0.0]), 99, ("is 0 from step 10 on",)),
    ],
    ids=["to 0", "to a floor", "and up again", "without an end"],
)
def test_a_decay_that_ends_early(rate, train_steps, words):
    (doubt,) = doubts_of(params(rate), train_steps).items()
    assert doubt[0] == "decay-ends-early"
    assert all(text in doubt[1] for text in words), doubt


def test_a_decay_that_ends_late():
    (doubt,) = doubts_of(params(SHORT, {"warmup_steps": 10, "mode": "delay"}), 60).items()
    assert doubt[0] == "decay-ends-late"
    assert "ends at step 110, `train_steps` is 60: the last rate is 0.00051, not 0" in doubt[1]
    assert "write 50 or leave it out" in doubt[1]


def test_what_is_no_finding():
    for length in (99, 100, 101):  # within 1 %
        rate = oneof("linear", initial_learning_rate=0.1, decay_steps=length)
        assert doubts_of(params(rate), 100) == {}
    for rate in (
        oneof("cosine", initial_learning_rate=0.1),
        oneof("cosine", initial_learning_rate=0.1, decay_steps="80%"),  # written of the whole
        oneof("exponential", initial_learning_rate=0.1, decay_steps=7, decay_rate=0.99),
        oneof("inverse_time", initial_learning_rate=0.1, decay_steps=7, decay_rate=0.9),
        oneof("cosine_restarts", initial_learning_rate=0.1, first_decay_steps=30),
        oneof("stepwise", boundaries=[50, 100], values=[0.1, 0.01, 0.001]),
        oneof("hf_reduce_lr_on_plateau", initial_learning_rate=0.1),
    ):
        assert doubts_of(params(rate), 100) == {}, rate


def test_boundaries_beyond_the_end():
    boundaries, values = [9360, 18720, 24960], [1.6, 0.16, 0.016, 0.0016]
    rate = oneof("stepwise", boundaries=boundaries, values=values)
    doubts = doubts_of(params(rate, {"warmup_steps": 1560}), 1251)
    assert set(doubts) == {"warmup-too-long", "boundaries-beyond-end"}
    assert "none is reached, `train_steps` is 1251" in doubts["boundaries-beyond-end"]
    (doubt,) = doubts_of(params(rate), 18719).values()
    assert "18720 and later are not reached" in doubt
    assert "the last rate is 0.16;" in doubt


# ---- who says it -------------------------------------------------------------------------------


def test_factories_say_what_was_not_said_before():
    config = OptimizationConfig(params(SHORT))
    with pytest.warns(ConfigWarning, match="decay-ends|the decay ends at step 100") as said:
        factory = OptimizerFactory(config, train_steps=200)
    assert len(said) == 1
    OptimizerFactory(factory.config)  # which knows the length, and what was said: no warning here
    doubtful = OptimizationConfig(params(SHORT, {"warmup_steps": 90}))
    with pytest.warns(ConfigWarning, match="the rate comes to 0.0001 at most"):
        doubtful.validate()
    OptimizerFactory(doubtful)
    with pytest.raises(ConfigError, match="is 0 in every step"):
        OptimizerFactory(OptimizationConfig(params(SHORT, LONG_WARMUP)))
