import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from optimization.keras.pipeline import PipelineOptimizer
from optimization.training import Trainer, array_batches
from optimization.training.loop import _global_norm, _sum_over_replicas, _sums
from tests.training.tiny import TinyTask, read_summaries, tiny


def test_a_step_must_return_its_loss():
    with pytest.raises(ValueError, match=r"received: \['los'\]"):
        _sums({"los": 1.0}, (tf.zeros((1,)), tf.zeros((1,))))


def test_the_global_norm_counts_each_row_once():
    """Rows 1 and 1 of a sparse gradient are one row: (3 + 0)^2 + (0 + 4)^2 = 25."""
    sparse = tf.IndexedSlices(tf.constant([[3.0, 0.0], [0.0, 4.0]]), tf.constant([1, 1]), (5, 2))
    dense = tf.constant([12.0])
    assert float(_global_norm([sparse, None, dense])) == 13.0


def test_one_replica_has_nothing_to_sum():
    pairs = [(tf.constant(1.0), "a"), (None, "b")]
    assert _sum_over_replicas(pairs) is pairs


IDS = np.array([[0, 1], [1, 1], [4, 0], [1, 4]] * 10)


class LookupTask(TinyTask):
    """The mean of two rows of a table is to be 1."""

    def build_model(self):
        layers = [keras.Input((2,), dtype="int32"), keras.layers.Embedding(6, 1, name="table")]
        return keras.Sequential([*layers, keras.layers.GlobalAveragePooling1D()], name="m")

    def build_inputs(self, params, input_context=None):
        return array_batches((IDS, np.ones((40, 1), "float32")), params, input_context)

    def train_step(self, inputs, model, optimizer, metrics):
        gradients, logs = super().train_step(inputs, model, optimizer, metrics)
        self.seen = gradients
        return gradients, logs


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_sparse_gradient_goes_through_the_loop(tmp_path, accumulation):
    """An embedding's gradient reaches the optimizer as IndexedSlices, inside the compiled loop."""
    config = tiny(
        "trainer.optimizer_config.optimizer.sgd.momentum=0,task.train_data.shuffle=false",
        f"trainer.optimizer_config.optimizer.sgd.gradient_accumulation_steps={accumulation}",
        f"task.train_data.global_batch_size={8 // accumulation}",
        "trainer.summary_interval=1",
    )
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=LookupTask(config.task))
    table = one.model.weights[0].numpy()[:, 0]
    one.train()
    moved = np.abs(one.model.weights[0].numpy()[:, 0] - table) > 0
    assert moved.tolist() == [True, True, False, False, True, False]
    assert all(isinstance(gradient, tf.IndexedSlices) for gradient in one.task.seen)
    errors = table[IDS[:8]].mean(axis=1) - 1.0
    gradient = np.zeros(6)
    np.add.at(gradient, IDS[:8], np.repeat(errors[:, None], 2, axis=1) / 8)
    norm = read_summaries(tmp_path / "train")["gradient_norm"][1]
    assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)  # float32


class BranchingTask(TinyTask):
    """A task whose functions ask tensors with Python's `if`, as `tf.function` lets users."""

    def build_inputs(self, params, input_context=None):
        def negated(features, labels):
            if tf.reduce_max(labels) < 1e9:
                labels = -labels
            return features, labels

        x = np.linspace(-1.0, 1.0, 40, dtype="float32")[:, None]
        return array_batches(
            (x * np.ones((1, 3), "float32"), x), params, input_context, transform=negated
        )

    def create_optimizer(self, optimizer_config, runtime_config=None, train_steps=None):
        del optimizer_config, runtime_config, train_steps
        return PipelineOptimizer(keras.optimizers.SGD(0.1), **{self.argument: self.halved})

    def halved(self, pairs):
        found = []
        for gradient, variable in pairs:
            if tf.reduce_max(tf.abs(gradient)) > 0.0:
                gradient = gradient / 2.0
            found.append((gradient, variable))
        return found

    def build_losses(self, labels, model_outputs, aux_losses=None):
        loss = super().build_losses(labels, model_outputs, aux_losses)
        if loss > 0.0:
            loss = 2.0 * loss
        return loss

    def process_metrics(self, metrics, labels, model_outputs):
        if tf.size(labels) > 0:
            super().process_metrics(metrics, labels, model_outputs)


@pytest.mark.parametrize("argument", ["gradient_transformers", "gradient_aggregator"])
@pytest.mark.parametrize("override", ["", "runtime.enable_xla=true", "runtime.run_eagerly=true"])
def test_the_loop_translates_the_functions_of_users(tmp_path, argument, override):
    """With loss and gradient as it says, one step is that of SGD by hand."""
    config = tiny(
        "trainer.train_steps=1,trainer.optimizer_config.warmup.type=null",
        "task.train_data.shuffle=false",
        *filter(None, [override]),
    )
    task = BranchingTask(config.task)
    task.argument = argument
    if argument == "gradient_transformers":
        one_by_one, task.halved = task.halved, None
        task.halved = [one_by_one]
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=task)
    before = [weight.numpy() for weight in one.model.weights]
    features, labels = next(iter(task.build_inputs(config.task.train_data)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((labels - one.model(features)) ** 2)  # twice, and then half
    gradients = tape.gradient(loss, one.model.trainable_variables)
    assert one.train(evaluate=True)["validation loss"] > 0
    for weight, old, gradient in zip(one.model.weights, before, gradients, strict=True):
        np.testing.assert_allclose(weight.numpy(), old - 0.1 * gradient.numpy(), rtol=1e-6)


def test_the_loop_is_traced_once(tmp_path):
    """Loops of 5, 1, 4 and 2 steps of two batches each: all the same function."""
    calls = []

    class CountedTask(TinyTask):
        def train_step(self, inputs, model, optimizer, metrics):
            calls.append(inputs)
            return super().train_step(inputs, model, optimizer, metrics)

    accumulate = "trainer.optimizer_config.optimizer.sgd.gradient_accumulation_steps=2"
    config = tiny(accumulate, "trainer.summary_interval=5,trainer.checkpoint_interval=6")
    Trainer(config, tmp_path, console=Console(quiet=True), task=CountedTask(config.task)).train()
    assert len(calls) == 1
