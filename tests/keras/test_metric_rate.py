import subprocess
import sys

import keras
import numpy as np
import pytest

import optimization
from optimization import OptimizationConfig, OptimizerFactory
from optimization.keras.metric_rate import FollowedRate
from optimization.optimizers import PipelineOptimizer
from tests.keras.common import UNCOMPILED, TableSchedule, tensorflow_only

KIND = "hf_reduce_lr_on_plateau"


def config(**settings):
    given = {"initial_learning_rate": 0.1, "factor": 0.5, "patience": 0, **settings}
    return OptimizationConfig(
        {"optimizer": {"type": "sgd"}, "learning_rate": {"type": KIND, KIND: given}}
    )


def optimizer_of(config):
    factory = OptimizerFactory(config)
    return factory.build_optimizer(factory.build_learning_rate())


def rate(optimizer):
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def fit(model, callback, epochs, **arguments):
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 3)).astype("float32")
    data = (x, x[:, :1])
    history = model.fit(
        *data,
        validation_data=data,
        epochs=epochs,
        callbacks=[callback],
        verbose=0,
        batch_size=8,
        **arguments,
    )
    return history.history


def model_of(config):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="head")])
    model.layers[0].kernel.assign(np.full((3, 1), 0.5))
    model.compile(optimizer_of(config), loss="mse", **UNCOMPILED)
    return model


def test_fit_reduces_the_rate_after_the_validation():
    # Nothing is better than the first value by so much.
    settings = config(threshold=1e6, threshold_mode="abs")
    model = model_of(settings)
    history = fit(model, optimization.MetricLearningRate(settings), 4)
    # The first value is better than none.
    np.testing.assert_allclose(history["learning_rate"], [0.1, 0.1, 0.05, 0.025], rtol=1e-6)
    assert rate(model.optimizer) == pytest.approx(0.0125)


def test_fit_trains_with_the_rate():
    settings = config(threshold=1e6, threshold_mode="abs", factor=1e-9)
    model, callback = model_of(settings), optimization.MetricLearningRate(settings)
    weights = []
    for _ in range(4):
        fit(model, callback, 1)
        weights.append(keras.ops.convert_to_numpy(model.layers[0].kernel).copy())
    assert np.abs(weights[1] - weights[0]).max() > 1e-3
    # After the second validation the rate is 1e-10: steps are too small for float32.
    np.testing.assert_array_equal(weights[2], weights[1])
    np.testing.assert_array_equal(weights[3], weights[1])


def test_epochs_without_a_validation_count_for_nothing():
    settings = config(threshold=1e6, threshold_mode="abs")
    callback = optimization.MetricLearningRate(settings, validation_freq=2)
    history = fit(model_of(settings), callback, 6, validation_freq=2)
    expected = [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="the validation reports nothing"):
        fit(model_of(settings), optimization.MetricLearningRate(settings), 1, validation_freq=2)
    with pytest.raises(ValueError, match="`validation_freq` must be >= 1"):
        optimization.MetricLearningRate(settings, validation_freq=0)


def test_fit_goes_on_here_and_in_another_process():
    settings = config(patience=1, threshold=1e6, threshold_mode="abs", cooldown=1)
    whole = fit(model_of(settings), optimization.MetricLearningRate(settings), 9)["learning_rate"]
    model, callback = model_of(settings), optimization.MetricLearningRate(settings)
    parts = fit(model, callback, 4)["learning_rate"]
    parts += fit(model, callback, 2)["learning_rate"]
    state = callback.state_dict()
    other = optimization.MetricLearningRate(settings)
    other.load_state_dict(state)
    assert other.state_dict() == state
    parts += fit(model_of(settings), other, 3)["learning_rate"]
    assert parts == whole
    assert len(set(whole)) == 3


def test_a_metric_that_is_not_reported_is_an_error():
    settings = config(metric="accuracy")
    with pytest.raises(ValueError, match="'accuracy'; the validation reports loss"):
        fit(model_of(settings), optimization.MetricLearningRate(settings), 1)


def test_a_schedule_cannot_follow():
    section = config().learning_rate.get()
    with pytest.raises(ValueError, match="must be a number in the optimizer"):
        FollowedRate(section, PipelineOptimizer(keras.optimizers.SGD(TableSchedule([0.1]))))


def test_another_type_is_an_error():
    cosine = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 5}}
    other = OptimizationConfig({"optimizer": {"type": "sgd"}, "learning_rate": cosine})
    with pytest.raises(TypeError, match="CosineLrConfig"):
        optimization.MetricLearningRate(other)


def test_the_machine_counts_in_float64_and_sees_what_others_set():
    section = config(min_lr=1e-3).learning_rate.get()
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    followed = FollowedRate(section, keras.optimizers.LossScaleOptimizer(optimizer))
    assert followed.machine.rates == [0.1]
    followed.step({"loss": 1.0})
    followed.step({"loss": 1.0})
    assert followed.machine.rates == [0.05]
    assert rate(optimizer) == np.float32(0.05)
    optimizer.learning_rate = 0.002
    followed.step({"loss": 1.0})
    assert rate(optimizer) == np.float32(0.001)


MIRRORED = """
import keras, numpy as np, tensorflow as tf
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
from optimization.optimizers import PipelineOptimizer
from optimization.keras.metric_rate import FollowedRate
from optimization.schedules import LrConfig
kind = "hf_reduce_lr_on_plateau"
settings = {"initial_learning_rate": 0.1, "factor": 0.5, "patience": 0}
strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
with strategy.scope():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    optimizer.build([keras.Variable(np.ones(2, "float32"))])
followed = FollowedRate(LrConfig({"type": kind, kind: settings}).get(), optimizer)
for _ in range(2):
    followed.step({"loss": 1.0})
values = strategy.run(lambda: tf.identity(optimizer.learning_rate))
print(*[float(v) for v in strategy.experimental_local_results(values)])
"""


@tensorflow_only
def test_every_replica_has_the_new_rate():
    # In a process of its own, since logical devices are set before TensorFlow starts.
    result = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [float(v) for v in result.stdout.split()] == [np.float32(0.05)] * 2
