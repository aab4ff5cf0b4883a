import keras
import numpy as np
import pytest
import tensorflow as tf

from optimization.training.loop import Means, _global_norm, _map, _sum_over_replicas, _sums


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


def test_a_step_must_return_its_loss():
    with pytest.raises(ValueError, match=r"received: \['los'\]"):
        _sums({"los": 1.0}, (tf.zeros((1,)), tf.zeros((1,))))


def test_the_global_norm_counts_each_row_once():
    """Rows 1 and 1 of a sparse gradient are one row: (3 + 0)^2 + (0 + 4)^2 = 25."""
    sparse = tf.IndexedSlices(tf.constant([[3.0, 0.0], [0.0, 4.0]]), tf.constant([1, 1]), (5, 2))
    dense = tf.constant([12.0])
    assert float(_global_norm([sparse, None, dense])) == 13.0


def test_mapping_keeps_the_structure():
    sparse = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]))
    seen = []
    result = _map(lambda value: seen.append(value) or 1, ([sparse, None, 3], {"a": 4}))
    assert result == ([1, None, 1], {"a": 1})
    assert seen == [sparse, 3, 4]


def test_one_replica_has_nothing_to_sum():
    pairs = [(tf.constant(1.0), "a"), (None, "b")]
    assert _sum_over_replicas(pairs) is pairs


def test_a_sparse_gradient_goes_through_the_loop(tmp_path):
    """An embedding's gradient reaches the optimizer as IndexedSlices, inside the compiled loop."""
    from rich.console import Console

    from optimization.training import Trainer, array_batches
    from tests.training.tiny import TinyTask, tiny

    ids = np.array([[0, 1], [1, 1], [4, 0], [1, 4]] * 10)
    seen = []

    class Lookup(TinyTask):
        def build_model(self):
            layers = [keras.Input((2,), dtype="int32"), keras.layers.Embedding(6, 1, name="table")]
            return keras.Sequential([*layers, keras.layers.GlobalAveragePooling1D()], name="m")

        def build_inputs(self, params, input_context=None):
            return array_batches((ids, np.ones((40, 1), "float32")), params, input_context)

        def train_step(self, inputs, model, optimizer, metrics):
            gradients, logs = super().train_step(inputs, model, optimizer, metrics)
            seen.extend(gradients)
            return gradients, logs

    config = tiny("trainer.optimizer_config.optimizer.sgd.momentum=0")
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=Lookup(config.task))
    before = one.model.weights[0].numpy()
    results = one.train()
    moved = np.abs(one.model.weights[0].numpy() - before)[:, 0] > 0
    assert moved.tolist() == [True, True, False, False, True, False]
    assert all(isinstance(gradient, tf.IndexedSlices) for gradient in seen)
    assert len(seen) >= 1
    assert results["gradient_norm"] > 0
