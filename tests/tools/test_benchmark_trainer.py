import numpy as np
import pytest
import tensorflow as tf

from optimization.training.data import distributed_batches
from tools.benchmark import trainer


def weights(trained):
    return [np.asarray(weight) for weight in trained.model.weights]


@pytest.mark.slow
def test_the_bare_loop_trains_as_the_trainer_does(tmp_path):
    config = trainer.experiment(4)
    bare = trainer.make_trainer(config, str(tmp_path / "bare"))
    before = weights(bare)
    loop = trainer.bare_loop(bare)
    loop(iter(distributed_batches(bare, config.task.train_data)), tf.constant(0, tf.int64))
    for was, is_ in zip(before, weights(bare), strict=True):
        np.testing.assert_array_equal(was, is_)
    loop(iter(distributed_batches(bare, config.task.train_data)), tf.constant(4, tf.int64))
    theirs = weights(bare)

    full = trainer.make_trainer(config, str(tmp_path / "full"))
    full.train()
    for mine, other in zip(weights(full), theirs, strict=True):
        # The same operations, in graphs that TensorFlow may arrange in another order.
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5)


def test_settings_of_the_trainer_are_its_own():
    config = trainer.experiment(300, steps_per_loop=1)
    assert config.trainer.train_steps == 300
    assert config.trainer.steps_per_loop == 1
    assert config.trainer.optimizer_config.learning_rate.cosine.decay_steps == 300


def test_the_table():
    text = trainer.report({trainer.BARE: [2.0, 4.0, 2.0], trainer.SHIPPED: [3.0, 4.4, 2.2]})
    assert "| bare loop | 2.000 | 2.000 | 1.00 | 1.00 |" in text
    assert "| trainer, as shipped | 3.000 | 2.200 | 1.10 | 1.10 |" in text
