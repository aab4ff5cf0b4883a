import copy

import keras
import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import LR_CLS, WARMUP_CLS, BaseLrConfig, LrConfig, curve
from optimization.schedules.keras_schedules import build_schedule, sample, schedule_class
from optimization.schedules.metric import MetricLrConfig
from tests.schedules.common import (
    RTOL,
    T,
    keras_values,
    lr_config,
    lr_examples,
    rate,
    warmup_config,
    warmup_examples,
)

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="is about TensorFlow")
LINEAR = warmup_config("linear")
EXAMPLES = [
    *(
        pytest.param(config, None if any(config.warmup_conflicts()) else LINEAR, id=name)
        for name, config in lr_examples()
        if not isinstance(config, MetricLrConfig)  # which has no schedule
    ),
    *(pytest.param(lr_config("cosine"), config, id=name) for name, config in warmup_examples()),
]
# Multiples of the periods of the examples among them, where a rounded quotient shows.
STEPS = [0, 1, 50, 99, 100, 101, 150, 300, 301, 450, 600, 900, 999, 1000, 1001, 9000, 2**24]


# ---- as Model Garden's users call the classes --------------------------------------------------


def test_learning_rate_from_keywords():
    lr = LR_CLS["cosine"](initial_learning_rate=0.1, decay_steps=T, offset=10)
    assert type(lr).__name__ == "CosineDecay"
    assert lr.config.offset == 10
    expected = rate(lr_config("cosine", offset=10), 400)
    np.testing.assert_allclose(keras_values(lr, 400), expected, rtol=RTOL)


@pytest.mark.parametrize("kwargs", [{}, {"name": None}, {"name": "mine"}])
def test_warmup_around_a_number(kwargs):
    lr = WARMUP_CLS["linear"](0.1, warmup_steps=10, warmup_learning_rate=0.02, **kwargs)
    assert type(lr).__name__ == "LinearWarmup"
    assert lr.name == (kwargs.get("name") or "linear")
    expected = [0.02, 0.06, 0.1, 0.1]
    np.testing.assert_allclose(keras_values(lr, [0, 5, 10, 11]), expected, rtol=RTOL)
    np.testing.assert_allclose(lr.curve([0, 5, 10, 11]), expected, rtol=1e-15)
    restored = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(lr))
    assert restored.after_warmup_lr_sched.config.learning_rate == 0.1


def test_warmup_around_a_learning_rate_by_keyword():
    after = LR_CLS["stepwise"](boundaries=[20], values=[0.1, 0.01])
    lr = WARMUP_CLS["polynomial"](after_warmup_lr_sched=after, warmup_steps=4, power=2)
    np.testing.assert_allclose(
        keras_values(lr, [0, 1, 2, 4, 20, 21]),
        [0.00625, 0.00625, 0.025, 0.1, 0.1, 0.01],
        rtol=RTOL,
    )


@pytest.mark.parametrize("mode", ["replace", "delay", "multiply"])
def test_warmup_around_keras_own_schedule(mode):
    after = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    lr = WARMUP_CLS["linear"](after, warmup_steps=20, mode=mode)
    ours = lr_config("exponential", initial_learning_rate=0.1, decay_steps=10, decay_rate=0.5)
    warmup = warmup_config("linear", warmup_steps=20, warmup_learning_rate=0.0, mode=mode)
    steps = [0, 1, 10, 19, 20, 21, 50]
    expected = curve(ours, warmup, steps)
    # Keras' own formula rounds decay_rate ** (step / decay_steps) in float32.
    np.testing.assert_allclose(sample(lr, steps), expected, rtol=2e-6)
    np.testing.assert_allclose(lr.curve(steps), expected, rtol=2e-6)
    restored = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(lr))
    assert restored.after_warmup_lr_sched.get_config() == after.get_config()
    np.testing.assert_array_equal(sample(restored, steps), sample(lr, steps))


class Table(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that needs integers, as its steps come from an optimizer."""

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor([0.5, 0.25, 0.125], "float32"), step)

    def get_config(self):
        return {}


def test_wrapped_schedules_receive_integers():
    lr = WARMUP_CLS["constant"](Table(), warmup_steps=1)
    assert sample(lr, [0, 1, 2]).tolist() == [0.0, 0.25, 0.125]


def test_warmups_nest():
    inner = WARMUP_CLS["linear"](0.1, warmup_steps=10)
    lr = WARMUP_CLS["constant"](inner, warmup_steps=5, warmup_learning_rate=0.01)
    expected = [0.01, 0.01, 0.05, 0.09, 0.1]
    np.testing.assert_allclose(keras_values(lr, [0, 4, 5, 9, 10]), expected, rtol=RTOL)
    np.testing.assert_allclose(lr.curve([0, 4, 5, 9, 10]), expected, rtol=1e-15)
    restored = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(lr))
    np.testing.assert_array_equal(restored.curve(range(20)), lr.curve(range(20)))


def test_no_warmup_steps_is_no_warmup():
    lr = WARMUP_CLS["linear"](0.1, warmup_steps=0)
    np.testing.assert_allclose(keras_values(lr, [0, 1]), [0.1, 0.1], rtol=RTOL)
    assert lr.curve([0, 1]).tolist() == [0.1, 0.1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LR_CLS["cosine"](initial_learning_rate=0.1),
            "decay_steps: 'remaining' takes `train_steps`",
        ),
        (
            lambda: LR_CLS["cosine"](initial_learning_rate=0.1, decay_step=1),
            "decay_step: unknown key; did you mean 'decay_steps'",
        ),
        (
            lambda: LR_CLS["cosine"](initial_learning_rate=0.1, decay_steps=0),
            "decay_steps: must be > 0, got 0",
        ),
        (
            lambda: WARMUP_CLS["linear"](
                0.0, warmup_steps=1, warmup_learning_rate=0.1, mode="multiply"
            ),
            "mode: cannot be `multiply`: the learning rate is 0 at step 0",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("wrapped", ["0.1", None, True])
def test_wrapped_must_be_a_learning_rate(wrapped):
    with pytest.raises(TypeError, match="`after_warmup_lr_sched` must be a number or"):
        WARMUP_CLS["linear"](wrapped, warmup_steps=1)


def test_config_is_read_only():
    lr = LR_CLS["constant"](learning_rate=0.1)
    with pytest.raises(ConfigError, match="locked"):
        lr.config.learning_rate = 0.2


# ---- build_schedule ----------------------------------------------------------------------------


def test_constant_without_warmup_is_a_float():
    lr = LrConfig({"type": "constant", "constant": {"learning_rate": 0.3}}).get()
    assert build_schedule(lr) == 0.3
    assert build_schedule(lr, warmup_config("linear", warmup_steps=0)) == 0.3
    assert isinstance(build_schedule(lr), float)
    assert not isinstance(build_schedule(lr, warmup_config("linear")), float)


def test_build_names_the_place_of_an_error():
    chosen = LrConfig({"type": "linear", "linear": {"initial_learning_rate": 1}})
    with pytest.raises(ConfigError, match=r"^linear\.decay_steps: 'remaining' takes `train_steps`"):
        build_schedule(chosen.get())


def test_later_changes_of_the_config_have_no_effect():
    config = lr_config("linear")
    schedule = build_schedule(config)
    config.initial_learning_rate = 5.0
    np.testing.assert_allclose(keras_values(schedule, 0), 0.1, rtol=RTOL)


def test_only_registered_configs_have_a_class():
    class Unregistered(BaseLrConfig):
        pass

    with pytest.raises(TypeError, match="Unregistered is not registered"):
        schedule_class(Unregistered)


# ---- steps and numbers of every kind -----------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        500,
        500.0,
        np.int64(500),
        np.array(500, "int32"),
        keras.ops.convert_to_tensor(500, "int32"),
        keras.Variable(500, dtype="int32", trainable=False),
    ],
    ids=["int", "float", "numpy", "array", "tensor", "variable"],
)
def test_kinds_of_step(step):
    schedule = build_schedule(lr_config("stepwise"), warmup_config("linear"))
    value = schedule(step)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert tuple(value.shape) == ()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(value), 0.02, rtol=RTOL)


def test_steps_beyond_int32():
    schedule = build_schedule(lr_config("linear", end_learning_rate=0.01))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(schedule(2**40)), 0.01, rtol=RTOL)


@pytest.mark.parametrize(("config", "warmup"), EXAMPLES)
def test_float32_whatever_the_default_dtype(config, warmup):
    steps = [0, 1, 55, 100, 333]
    expected = keras_values(build_schedule(config, warmup), steps)
    default = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        values = keras_values(build_schedule(config, warmup), steps)
    finally:
        keras.config.set_floatx(default)
    np.testing.assert_array_equal(values, expected)


def test_copies():
    schedule = build_schedule(lr_config("cosine"), warmup_config("linear"))
    np.testing.assert_array_equal(copy.deepcopy(schedule).curve(STEPS), schedule.curve(STEPS))


# ---- compiled ----------------------------------------------------------------------------------


def _compiled(schedule):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        function = tf.function(schedule, jit_compile=True)
        return [function(tf.constant(step, tf.int64)).numpy() for step in STEPS]
    if BACKEND == "jax":
        import jax

        function = jax.jit(schedule)
        return [function(step) for step in STEPS]
    return [schedule(step).item() for step in STEPS]


@pytest.mark.parametrize(("config", "warmup"), EXAMPLES)
def test_one_step_at_a_time_compiled_by_xla(config, warmup):
    expected = curve(config, warmup, STEPS)
    # XLA may divide by multiplying with the reciprocal and fuse: as many roundings again.
    np.testing.assert_allclose(
        np.asarray(_compiled(build_schedule(config, warmup)), np.float64),
        expected,
        rtol=2 * RTOL,
        atol=0.2 * RTOL * expected.max(),
    )


@on_tensorflow
@pytest.mark.parametrize(("config", "warmup"), EXAMPLES)
def test_in_a_graph(config, warmup):
    import tensorflow as tf

    schedule = build_schedule(config, warmup)
    function = tf.function(schedule)
    step = tf.Variable(0, dtype=tf.int64)
    for value in (0, 1, 99, 100, 777):
        step.assign(value)
        # The graph folds constants; beyond that it runs the same kernels.
        np.testing.assert_allclose(function(step).numpy(), schedule(value).numpy(), rtol=RTOL)
    assert function.experimental_get_tracing_count() == 1


@on_tensorflow
def test_the_name_is_a_scope_of_the_graph():
    import tensorflow as tf

    schedule = LR_CLS["cosine"](initial_learning_rate=0.1, decay_steps=10, name="my_rate")
    graph = tf.function(schedule).get_concrete_function(tf.TensorSpec([], tf.int64)).graph
    assert any("my_rate/" in operation.name for operation in graph.get_operations())


# ---- in an optimizer ---------------------------------------------------------------------------


def test_an_optimizer_steps_with_it():
    variable = keras.Variable(0.0)
    schedule = build_schedule(
        lr_config("stepwise", boundaries=[2], values=[0.5, 0.25]),
        warmup_config("linear", warmup_steps=2, warmup_learning_rate=0.125),
    )
    optimizer = keras.optimizers.SGD(schedule)
    seen = []
    for _ in range(4):
        before = float(keras.ops.convert_to_numpy(variable))
        optimizer.apply([keras.ops.convert_to_tensor(-1.0)], [variable])
        seen.append(float(keras.ops.convert_to_numpy(variable)) - before)
    assert seen == [0.125, 0.3125, 0.5, 0.25]


def test_a_saved_model_keeps_its_schedule(tmp_path):
    schedule = build_schedule(lr_config("cosine", offset=3), warmup_config("polynomial"))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(schedule, momentum=0.9), loss="mse")
    data = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    model.fit(*data, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras").optimizer._learning_rate
    assert restored.get_config() == schedule.get_config()
    np.testing.assert_array_equal(restored.curve(STEPS), schedule.curve(STEPS))
