import keras
import numpy as np
import pytest
import tensorflow as tf

from optimization.training import Task
from tests.training.tiny import TinyConfig, TinyTask, arrays, tiny


def test_a_task_without_model_data_and_loss_cannot_be_made():
    with pytest.raises(TypeError, match="build_inputs"):
        Task(TinyConfig())


def test_there_are_no_metrics_unless_the_task_makes_some():
    class Bare(TinyTask):
        build_metrics = Task.build_metrics

    assert Bare(TinyConfig()).build_metrics(training=True) == []


def make(model_loss=0.0):
    task = TinyTask(TinyConfig(), "some/dir")
    assert task.logging_dir == "some/dir"
    model = task.build_model()
    if model_loss:
        model.layers[-1].kernel.regularizer = keras.regularizers.L2(model_loss)
    return task, model, tuple(map(tf.constant, arrays()))


def test_a_training_step_returns_gradients_and_changes_no_weight():
    task, model, inputs = make()
    config = tiny()
    optimizer = task.create_optimizer(config.trainer.optimizer_config, config.runtime)
    optimizer.build(model.trainable_variables)
    before = [w.numpy() for w in model.weights]
    metrics = task.build_metrics(training=True)
    gradients, logs = task.train_step(inputs, model, optimizer, metrics)
    features, labels = arrays()
    error = features @ before[0] + before[1] - labels
    # Float32 sums over 40 examples.
    np.testing.assert_allclose(logs["loss"], np.mean(error**2), rtol=1e-5)
    np.testing.assert_allclose(gradients[0], 2 / 40 * features.T @ error, rtol=1e-4)
    np.testing.assert_allclose(gradients[1], [2 * np.mean(error)], rtol=1e-4)
    np.testing.assert_allclose(metrics[0].result(), np.mean(np.abs(error)), rtol=1e-5)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert int(optimizer.iterations) == 0


def test_gradients_are_scaled_with_the_loss():
    task, model, inputs = make()
    optimizer = keras.optimizers.SGD(loss_scale_factor=8.0)
    plain, logs = task.train_step(inputs, model, keras.optimizers.SGD(), [])
    scaled, scaled_logs = task.train_step(inputs, model, optimizer, [])
    # A power of two scales exactly.
    np.testing.assert_array_equal(scaled[0], 8 * plain[0])
    assert float(scaled_logs["loss"]) == float(logs["loss"])


def test_the_models_own_losses_are_in_the_loss():
    task, model, inputs = make()
    _, plain = task.train_step(inputs, model, keras.optimizers.SGD(), [])
    task, other, _ = make(model_loss=0.5)
    other.set_weights(model.get_weights())
    _, regularized = task.train_step(inputs, other, keras.optimizers.SGD(), [])
    expected = float(plain["loss"]) + 0.5 * np.sum(model.get_weights()[0] ** 2)
    np.testing.assert_allclose(regularized["loss"], expected, rtol=1e-6)  # float32 sums


def test_a_validation_step_runs_the_model_for_inference():
    task = TinyTask(TinyConfig(hidden=4, dropout=0.9))
    model = task.build_model()
    inputs = tuple(map(tf.constant, arrays()))
    metrics = task.build_metrics(training=False)
    once, again = (task.validation_step(inputs, model, metrics) for _ in range(2))
    assert float(once["loss"]) == float(again["loss"])
    expected = np.mean((model(inputs[0], training=False) - inputs[1]) ** 2)
    np.testing.assert_allclose(once["loss"], expected, rtol=1e-6)  # float32 sums
