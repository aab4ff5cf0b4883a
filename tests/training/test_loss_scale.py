import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from optimization import ConfigError, OptimizationConfig, RuntimeConfig
from optimization.optimizers import PipelineOptimizer
from optimization.training import Task, Trainer, array_batches, with_loss_scale
from optimization.training.loss_scale import DynamicLossScale
from tests.training.tiny import (
    BATCH,
    TinyTask,
    arrays,
    assert_same_bits,
    read_summaries,
    tiny,
    trainer,
    weights,
)

pytestmark = pytest.mark.slow

SECTION = "trainer.optimizer_config.optimizer.sgd"
FLOAT16 = "runtime.mixed_precision_dtype=float16"


def scaled(accumulation=1, growth=3, **options):
    inner = PipelineOptimizer(
        keras.optimizers.SGD(0.5),
        gradient_accumulation_steps=accumulation,
        on_nonfinite="skip",
        **options,
    )
    optimizer = DynamicLossScale(inner, initial_scale=8.0, dynamic_growth_steps=growth)
    variable = keras.Variable([4.0], name="w")
    optimizer.build([variable])
    return optimizer, variable


@pytest.mark.parametrize("in_function", [False, True])
def test_the_scale_halves_after_an_overflow_and_doubles_after_a_while(in_function):
    optimizer, variable = scaled()
    step = lambda gradient: optimizer.apply([gradient], [variable])  # noqa: E731
    if in_function:
        step = tf.function(step, reduce_retracing=True)
    scales, values = [], []
    for gradient in (8.0, np.inf, 4.0, 4.0, 4.0, 8.0, np.nan):
        step(tf.constant([gradient]))
        scales.append(float(optimizer.dynamic_scale))
        values.append(float(variable.numpy()[0]))
    assert scales == [8.0, 4.0, 4.0, 4.0, 8.0, 8.0, 4.0]
    # Each finite gradient, divided by the scale, is 1; the rate is 0.5.
    assert values == [3.5, 3.5, 3.0, 2.5, 2.0, 1.5, 1.5]
    assert int(optimizer.iterations) == 5
    assert int(optimizer.inner_optimizer.nonfinite_steps) == 2


def test_one_overflow_skips_all_batches_of_an_update():
    optimizer, variable = scaled(accumulation=2)
    for gradient in (np.inf, 8.0, 4.0, 12.0):
        optimizer.apply([tf.constant([gradient])], [variable])
    # The first two are skipped; the mean of the others, by then at a scale of 4, is 2.
    assert float(variable.numpy()[0]) == 4.0 - 0.5 * 2.0
    assert float(optimizer.dynamic_scale) == 4.0
    assert int(optimizer.iterations) == 1
    assert int(optimizer.inner_optimizer.micro_step) == 0


def test_the_scale_stays_within_float32():
    optimizer, variable = scaled(growth=1)
    for gradient, end in ((np.inf, 2.0**-64), (0.0, 2.0**64)):
        for _ in range(200):
            optimizer.apply([tf.constant([gradient])], [variable])
        assert float(optimizer.dynamic_scale) == end


def test_sparse_gradients_stay_sparse():
    inner = PipelineOptimizer(keras.optimizers.SGD(1.0), on_nonfinite="skip")
    optimizer = DynamicLossScale(inner, initial_scale=2.0)
    table = keras.Variable(np.zeros((4, 1), "float32"), name="table")
    gradient = tf.IndexedSlices(tf.constant([[2.0], [4.0]]), tf.constant([1, 1]), (4, 1))
    optimizer.apply([gradient], [table])
    assert table.numpy()[:, 0].tolist() == [0.0, -3.0, 0.0, 0.0]


def test_an_optimizer_that_does_not_skip_is_refused():
    optimizer = DynamicLossScale(keras.optimizers.SGD())
    with pytest.raises(ValueError, match=r"with on_nonfinite='skip', received: SGD"):
        optimizer.build([keras.Variable([1.0])])


def test_which_loss_scale_goes_with_which_optimizer():
    config = RuntimeConfig(mixed_precision_dtype="float16")
    skipping = PipelineOptimizer(keras.optimizers.SGD(), on_nonfinite="skip")
    assert type(with_loss_scale(skipping, config)) is DynamicLossScale
    for other in (keras.optimizers.SGD(), PipelineOptimizer(keras.optimizers.SGD())):
        assert type(with_loss_scale(other, config)) is keras.optimizers.LossScaleOptimizer


def test_it_comes_back_from_its_config():
    optimizer, _ = scaled()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is DynamicLossScale
    assert again.initial_scale == 8.0
    assert again.dynamic_growth_steps == 3


def test_a_dynamic_scale_and_raise_contradict_each_other():
    with pytest.raises(ConfigError, match=r"sgd\.on_nonfinite: must be `skip` with a dynamic"):
        tiny(FLOAT16, f"{SECTION}.on_nonfinite=raise")
    tiny(FLOAT16, f"{SECTION}.on_nonfinite=raise", "runtime.loss_scale=64.0")


@pytest.mark.parametrize("scale", ["dynamic", "64.0"])
def test_four_batches_of_two_are_one_of_eight(tmp_path, scale):
    settings = ("task.hidden=0", FLOAT16, f"runtime.loss_scale={scale}")
    whole = trainer(tmp_path / "whole", *settings)
    expected = whole.train()
    parts = trainer(
        tmp_path / "parts",
        *settings,
        "task.train_data.global_batch_size=2",
        f"{SECTION}.gradient_accumulation_steps=4",
    )
    results = parts.train()
    # All of the model computes in float32; the scale is a power of two, so nothing is rounded.
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-5, err_msg=name)
    for mine, theirs in zip(parts.model.variables, whole.model.variables, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=0, atol=2e-6)


class OverflowTask(TinyTask):
    """Batch 2 of every five has a label whose gradient float16 cannot hold."""

    def build_inputs(self, params, input_context=None):
        features, labels = arrays(params.is_training)
        if params.is_training:
            labels[2 * BATCH + BATCH - 1] = 1e10
        return array_batches((features, labels), params, input_context)


@pytest.mark.parametrize("scale", ["dynamic", "64.0"])
def test_an_overflow_skips_the_step_and_is_counted(tmp_path, scale):
    settings = [FLOAT16, "task.hidden=4,task.train_data.shuffle=false,trainer.summary_interval=1"]
    settings += [f"runtime.loss_scale={scale}", f"{SECTION}.on_nonfinite=skip"]
    before, after = (
        Trainer(
            config, tmp_path / name, console=Console(quiet=True), task=OverflowTask(config.task)
        )
        for name, config in (
            ("before", tiny(*settings, "trainer.train_steps=2")),
            ("after", tiny(*settings, "trainer.train_steps=3")),
        )
    )
    for each in (before, after):
        if scale == "dynamic":
            each.optimizer.dynamic_scale.assign(64.0)  # Keras' 2^15 overflows in every batch.
        each.train()
    counters = ("nonfinite", "step_counter", "dynamic_scale", "moving_")

    def rest(values):
        return {k: v for k, v in values.items() if not any(name in k for name in counters)}

    assert_same_bits(rest(weights(after)), rest(weights(before)))
    summaries = read_summaries(tmp_path / "after/train")
    assert summaries["nonfinite_steps"] == {1: 0, 2: 0, 3: 1}
    if scale == "dynamic":
        assert summaries["loss_scale"] == {1: 64.0, 2: 64.0, 3: 32.0}


@pytest.mark.parametrize("scale", [None, "dynamic", 64.0])
@pytest.mark.parametrize(("written", "expected"), [(None, "skip"), ("propagate", "propagate")])
def test_an_overflow_is_skipped_where_nothing_else_is_said(scale, written, expected):
    config = tiny("runtime.mixed_precision_dtype=float16")
    config.runtime.loss_scale = scale
    config.trainer.optimizer_config.optimizer.get().on_nonfinite = written
    if written and scale != 64.0:
        with pytest.raises(ConfigError, match="must be `skip` with a dynamic loss scale"):
            config.validate()
        return
    optimizer = TinyTask.create_optimizer(config.trainer.optimizer_config, config.runtime)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    assert inner.get_config()["on_nonfinite"] == expected
    assert config.sized_optimizer_config().optimizer.get().on_nonfinite == expected


def test_the_loss_scaling_that_a_config_asks_for():
    config = OptimizationConfig(
        optimizer={"type": "sgd"},
        learning_rate={"type": "constant", "constant": {"learning_rate": 0.1}},
    )
    static = RuntimeConfig(mixed_precision_dtype="float16", loss_scale=128)
    optimizer = Task.create_optimizer(config, static)
    assert optimizer.loss_scale_factor == 128.0
    assert float(optimizer.scale_loss(2.0)) == 256.0
    for scale in ("dynamic", None):
        runtime = RuntimeConfig(mixed_precision_dtype="float16", loss_scale=scale)
        optimizer = Task.create_optimizer(config, runtime)
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    for runtime in (None, RuntimeConfig(), RuntimeConfig(mixed_precision_dtype="bfloat16")):
        optimizer = keras.optimizers.SGD()
        assert with_loss_scale(optimizer, runtime) is optimizer
        assert optimizer.loss_scale_factor is None
