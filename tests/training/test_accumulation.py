"""A training step of several batches is one update, the same as one of a larger batch."""

import keras
import numpy as np
import pytest
from rich.console import Console

from optimization import OptimizerFactory
from optimization.training import Trainer, TrainingError
from tests.training.tiny import (
    TinyTask,
    arrays,
    assert_same_bits,
    read_summaries,
    stored,
    tiny,
    trainer,
    weights,
)

pytestmark = pytest.mark.slow

FOUR_OF_TWO = (
    "task.train_data.global_batch_size=2",
    "trainer.optimizer_config.optimizer.sgd.gradient_accumulation_steps=4",
)
EMA = "trainer.optimizer_config.ema={average_decay: 0.9}"
CLIP = "trainer.optimizer_config.optimizer.sgd.global_clipnorm=0.5"


def assert_close(actual, expected):
    for name, value in expected.items():
        # The mean of four float32 means, in another order than the mean of all.
        bound = 1e-6 * max(np.abs(value).max(), 1.0)
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("clip", [(), (CLIP,)])
@pytest.mark.parametrize("eager", [False, True])
def test_four_batches_of_two_are_one_of_eight(tmp_path, eager, clip):
    settings = (EMA, *clip, "trainer.summary_interval=1", f"runtime.run_eagerly={eager}")
    whole = trainer(tmp_path / "whole", *settings)
    expected = whole.train(evaluate=True)
    parts = trainer(tmp_path / "parts", *FOUR_OF_TWO, *settings)
    assert_close(parts.train(evaluate=True), expected)
    assert parts.step == int(parts.optimizer.iterations) == 12
    assert int(parts.optimizer.micro_step) == 0
    by_path = {p: v.numpy() for p, v in whole.optimizer.variables_by_path().items()}
    assert_close({p: v.numpy() for p, v in parts.optimizer.variables_by_path().items()}, by_path)
    assert_close(weights(parts), {v.path: v.numpy() for v in whole.model.variables})
    of_whole = read_summaries(tmp_path / "whole/train")
    of_parts = read_summaries(tmp_path / "parts/train")
    for tag in of_whole.keys() - {"steps_per_second"}:
        assert_close(of_parts[tag], of_whole[tag])


def test_resumed_accumulation_is_the_same_bit_for_bit(tmp_path):
    settings = (*FOUR_OF_TWO, EMA, "task.hidden=4")
    whole = trainer(tmp_path / "whole", *settings)
    whole.train()
    trainer(tmp_path / "parts", *settings, "trainer.train_steps=5").train()
    resumed = trainer(tmp_path / "parts", *settings)
    resumed.train()
    assert_same_bits(weights(resumed), weights(whole))
    assert_same_bits(stored(tmp_path / "parts/ckpt-12"), stored(tmp_path / "whole/ckpt-12"))


class OwnOptimizerTask(TinyTask):
    @classmethod
    def create_optimizer(cls, optimizer_config, runtime_config=None):
        return keras.optimizers.SGD(0.1)


def test_an_optimizer_that_accumulates_otherwise_is_an_error(tmp_path):
    config = tiny(*FOUR_OF_TWO)
    task = OwnOptimizerTask(config.task)
    with pytest.raises(TrainingError, match="is 4, but the SGD that the task created .* of 1"):
        Trainer(config, tmp_path, console=Console(quiet=True), task=task)


RAMP = (
    "task.train_data={global_batch_size: 2, shuffle: false}",
    "trainer.optimizer_config.accumulation={micro_batches: [1, 3, 4], boundaries: [3, 7]}",
    "trainer.summary_interval=1",
)
COUNTS = [1] * 3 + [3] * 4 + [4] * 5


def of_numpy(rates):
    """Returns weights and bias after each step, and the last gradient's norm: SGD in float64."""
    features, labels = (np.float64(array) for array in arrays())
    place, w, b = 0, np.zeros((3, 1)), np.zeros(1)
    velocity = [np.zeros_like(w), np.zeros_like(b)]
    for count, rate in zip(COUNTS, rates, strict=True):
        rows = np.arange(place, place + 2 * count) % len(features)
        place += 2 * count
        error = features[rows] @ w + b - labels[rows]
        grads = [2 * features[rows].T @ error / len(rows), 2 * error.mean(axis=0)]
        velocity = [0.9 * v - rate * g for v, g in zip(velocity, grads, strict=True)]
        w, b = w + velocity[0], b + velocity[1]
        yield w, b, np.sqrt(sum(np.sum(g * g) for g in grads))


@pytest.mark.parametrize("norms", ["null", "groups"])
def test_batches_grow_and_updates_are_counted(tmp_path, norms):
    ramped = trainer(tmp_path, *RAMP, f"trainer.norm_summaries={norms}")
    ramped.model.set_weights([np.zeros((3, 1)), np.zeros(1)])
    factory = OptimizerFactory(ramped.optimizer_config)
    expected = list(of_numpy(factory.learning_rate_curve(range(12))))
    ramped.train()
    for found, value in zip(ramped.model.get_weights(), expected[-1], strict=False):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6)  # in float32
    assert ramped.step == int(ramped.optimizer.iterations) == 12
    summaries = read_summaries(tmp_path / "train")
    # Of the update to come, as the rate.
    told = [summaries["micro_batches"][step] for step in range(1, 13)]
    assert told == [*COUNTS[1:], 4]
    for step, (_, _, norm) in enumerate(expected, start=1):
        assert summaries["gradient_norm"][step] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("step", [2, 5])
def test_a_ramp_goes_on_bit_for_bit(tmp_path, step):
    settings = (*RAMP, EMA, "task.hidden=4", "trainer.checkpoint_interval=20")
    whole = trainer(tmp_path / "whole", *settings)
    whole.train()
    trainer(tmp_path / "parts", *settings, f"trainer.train_steps={step}").train()
    resumed = trainer(tmp_path / "parts", *settings)
    resumed.train()
    assert_same_bits(weights(resumed), weights(whole))
    assert_same_bits(stored(tmp_path / "parts/ckpt-12"), stored(tmp_path / "whole/ckpt-12"))


def test_a_ramp_that_the_task_leaves_out_is_an_error(tmp_path):
    config = tiny(*RAMP)
    with pytest.raises(TrainingError, match="`accumulation` grows, but not that of the SGD"):
        Trainer(config, tmp_path, console=Console(quiet=True), task=OwnOptimizerTask(config.task))
