import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from optimization.training.loop import _sums
from optimization.training.means import Means


def test_means_are_weighted_by_examples_and_start_anew():
    means = Means()
    assert means.result() == {}
    inputs = tf.zeros((3, 2)), tf.zeros((3,))
    means.add(_sums({"loss": tf.constant(1.0), "extra": 4}, inputs))
    means.add(_sums({"loss": tf.constant(5.0), "extra": 4}, (tf.zeros((1, 2)), tf.zeros((1,)))))
    assert means.result() == {"loss": 2.0, "extra": 4.0}
    means.reset()
    assert np.isnan(means.result()["loss"])


def test_the_mean_over_no_examples_does_not_count():
    means = Means()
    empty = tf.zeros((0, 2)), tf.zeros((0,))
    means.add(_sums({"loss": tf.constant(float("nan"))}, empty))
    means.add(_sums({"loss": tf.constant(3.0)}, (tf.zeros((2, 2)), tf.zeros((2,)))))
    assert means.result() == {"loss": 3.0}


def test_a_loss_that_is_nan_is_not_hidden():
    means = Means()
    means.add(_sums({"loss": tf.constant(float("nan"))}, (tf.zeros((2, 2)), tf.zeros((2,)))))
    assert np.isnan(means.result()["loss"])


def test_means_are_made_when_a_function_is_traced():
    means = Means()

    @tf.function
    def step(x):
        means.add(_sums({"loss": tf.reduce_mean(x)}, (x, x)))

    for value in (1.0, 2.0):
        step(tf.fill((2,), value))
    assert means.result() == {"loss": 1.5}


def test_where_asked_to_means_leave_out_batches_whose_loss_is_not_finite():
    means = Means(finite_only=True)
    inputs = tf.zeros((2, 2)), tf.zeros((2,))
    for loss in (1.0, float("nan"), float("inf"), 3.0):
        means.add(_sums({"loss": tf.constant(loss), "extra": loss}, inputs))
    assert means.result() == {"loss": 2.0, "extra": 2.0}


def test_a_step_may_not_return_more_numbers_than_there_is_room_for():
    logs = {"loss": 1.0} | {str(number): 1.0 for number in range(1023)}
    with pytest.raises(ValueError, match="may return 1023 numbers at most, got 1024"):
        Means().add(_sums(logs, (tf.zeros((1,)), tf.zeros((1,)))))


def batch(loss, **more):
    """What a step returns of two examples."""
    return _sums({"loss": tf.constant(loss), **more}, (tf.zeros((2, 2)), tf.zeros((2,))))


def of(*metrics):
    """Returns means of metrics, and a step that TensorFlow compiles, of which both see a value."""
    means = Means(list(metrics))

    @tf.function
    def step(value):
        for metric in metrics:
            metric.update_state(tf.fill((2, 1), 1.0), tf.fill((2, 1), value))
        means.add(batch(value))

    return means, step


def error():
    return keras.metrics.MeanAbsoluteError(name="error")


VALUES = 0.1, 0.7, 0.2, 0.5


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_they_go_on_half_way(traced, late):
    """Bit for bit; also a metric that makes its variables in the first step."""
    metrics = [error, *([lambda: keras.metrics.R2Score(name="fit")] * late)]
    whole, step = of(*(metric() for metric in metrics))
    for value in VALUES:
        step(value)
    first, step = of(*(metric() for metric in metrics))
    for value in VALUES[:2]:
        step(value)
    first.keep()
    second, step = of(*(metric() for metric in metrics))
    if traced:  # as of a trainer that restores when it has trained
        step(9.0)
    second.state.assign(first.state)
    second.take()
    for value in VALUES[2:]:
        step(value)
    assert second.results() == whole.results()
    assert len(second.results()) == 2 + late


def test_metrics_that_are_others_now_start_anew():
    first, step = of(error(), keras.metrics.MeanSquaredError(name="square"))
    step(0.0)
    first.keep()
    same, step = of(error(), keras.metrics.AUC(name="square"), keras.metrics.Mean(name="mean"))
    same.state.assign(first.state)
    same.take()
    assert same.metrics[0].result() == 1.0
    assert [float(v.numpy().sum()) for m in same.metrics[1:] for v in m.variables] == [0.0] * 6


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_metric_of_another_dtype_starts_anew(dtype):
    first, _ = of(keras.metrics.Sum(name="sum", dtype="float64"))
    first.metrics[0].update_state(3.0)
    first.keep()
    second, _ = of(keras.metrics.Sum(name="sum", dtype=dtype))
    second.state.assign(first.state)
    second.take()
    assert second.metrics[0].result() == (3.0 if dtype == "float64" else 0.0)


def test_means_that_are_others_now_start_anew():
    first = Means()
    first.add(batch(1.0, extra=2.0))
    first.keep()
    second = Means()
    second.state.assign(first.state)
    second.take()
    assert second.result() == {"loss": 1.0, "extra": 2.0}
    second.add(batch(3.0))
    assert second.result() == {"loss": 3.0}


def test_a_checkpoint_without_them_starts_anew():
    means = Means()
    means.add(batch(1.0))
    means.keep()
    means.take()
    assert means.result() == {"loss": 1.0}
    means.take()
    assert np.isnan(means.result()["loss"])


def test_what_is_not_finite_is_kept():
    first, second = Means(), Means()
    first.add(batch(float("nan"), extra=float("inf")))
    first.keep()
    assert json.loads(first.state.numpy())["sums"]["extra"] == float("inf")
    second.state.assign(first.state)
    second.take()
    assert np.isnan(second.result()["loss"])
    assert second.result()["extra"] == float("inf")
