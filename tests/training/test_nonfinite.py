"""What a run does when gradients or the loss are infinite or NaN."""

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from optimization.training import (
    NonFiniteGradientsError,
    NonFiniteLossError,
    Trainer,
    array_batches,
)
from optimization.training.inspection import nonfinite_variables
from tests.training.tiny import (
    BATCH,
    TinyTask,
    arrays,
    read_summaries,
    run,
    tiny,
    weights,
)

pytestmark = pytest.mark.slow

SECTION = "trainer.optimizer_config.optimizer.sgd"
IN_ORDER = "task.train_data.shuffle=false"


class HolesTask(TinyTask):
    """The labels of some batches are NaN; 5 batches are an epoch, so they come back."""

    bad_batches = (2,)

    def build_inputs(self, params, input_context=None):
        features, labels = arrays(params.is_training)
        if params.is_training:
            for batch in self.bad_batches:
                labels[batch * BATCH] = np.nan
        return array_batches((features, labels), params, input_context)


class MostlyHolesTask(HolesTask):
    bad_batches = (2, 3, 4)


def holes_trainer(directory, *overrides, task=HolesTask):
    config = tiny(IN_ORDER, "trainer.summary_interval=1", *overrides)
    return Trainer(config, directory, console=Console(quiet=True), task=task(config.task))


@pytest.mark.parametrize("eager", [False, True])
def test_raise_ends_the_run_and_names_the_variables(tmp_path, eager):
    one = holes_trainer(
        tmp_path,
        f"{SECTION}.on_nonfinite=raise,runtime.run_eagerly={eager}",
        "trainer.checkpoint_interval=1,trainer.steps_per_loop=1",
    )
    with pytest.raises(NonFiniteGradientsError) as error:
        one.train()
    assert "after 2 updates" in str(error.value)
    assert "tiny/head/kernel, tiny/head/bias;" in str(error.value)
    assert sorted(path.stem for path in tmp_path.glob("*.index")) == ["ckpt-1", "ckpt-2"]


def test_propagate_ends_the_run_by_its_loss(tmp_path):
    with pytest.raises(NonFiniteLossError):
        holes_trainer(tmp_path).train()


@pytest.mark.parametrize("eager", [False, True])
def test_skip_goes_on_as_if_the_batch_had_not_been(tmp_path, eager):
    """Batches 2 and 7 of twelve: their updates are left out, counted, and not in the means."""
    settings = f"{SECTION}.on_nonfinite=skip,runtime.run_eagerly={eager}"
    ema = "trainer.optimizer_config.ema={average_decay: 0.9}"
    one = holes_trainer(tmp_path, settings, ema)
    results = one.train(evaluate=True)
    assert one.step == 12
    assert int(one.optimizer.iterations) == 10
    assert results["nonfinite_steps"] == 2
    assert all(np.isfinite(value).all() for value in weights(one).values())
    summaries = read_summaries(tmp_path / "train")
    assert [summaries["nonfinite_steps"][s] for s in (2, 3, 7, 8, 12)] == [0, 1, 1, 2, 2]
    assert [s for s, loss in summaries["loss"].items() if np.isnan(loss)] == [3, 8]
    # The schedule stood still too: the rate is that after ten updates.
    curve = one.optimizer.optimizer._learning_rate
    assert results["learning_rate"] == pytest.approx(float(curve(10)))


def test_the_mean_of_a_summary_leaves_out_what_was_skipped(tmp_path):
    settings = (f"{SECTION}.on_nonfinite=skip", "trainer.train_steps=4")
    holes_trainer(tmp_path / "each", *settings).train()
    each = read_summaries(tmp_path / "each/train")["loss"]
    holes_trainer(tmp_path / "four", *settings, "trainer.summary_interval=4").train()
    mean = read_summaries(tmp_path / "four/train")["loss"][4]
    # float32 sums of three losses.
    np.testing.assert_allclose(mean, np.mean([each[1], each[2], each[4]]), rtol=1e-6)


def test_too_many_in_a_row_end_the_run(tmp_path):
    settings = f"{SECTION}.on_nonfinite=skip,{SECTION}.max_consecutive_nonfinite=2"
    assert holes_trainer(tmp_path / "few", settings).train()["nonfinite_steps"] == 2
    one = holes_trainer(tmp_path / "many", settings, task=MostlyHolesTask)
    with pytest.raises(NonFiniteGradientsError, match="after 2 updates .*tiny/head/kernel"):
        one.train()


def test_a_bad_batch_among_those_of_an_update_skips_the_whole_update(tmp_path):
    """Updates of two batches: 2 and 3 (the bad one is 2), then 6 and 7."""
    accumulate = f"{SECTION}.on_nonfinite=skip,{SECTION}.gradient_accumulation_steps=2"
    one = holes_trainer(tmp_path, accumulate, "trainer.train_steps=5")
    assert one.train()["nonfinite_steps"] == 2
    assert one.step == 5
    assert int(one.optimizer.iterations) == 3
    assert int(one.optimizer.micro_step) == 0


class EmptyTask(TinyTask):
    """The third batch is empty, which has the loss NaN and gradients of 0."""

    def build_inputs(self, params, input_context=None):
        def shortened(number, batch):
            rows = tf.where(number == 2, 0, BATCH)
            return tf.nest.map_structure(lambda x: x[:rows], batch)

        found = super().build_inputs(params, input_context)
        return found.enumerate().map(shortened) if params.is_training else found


@pytest.mark.parametrize("choice", ["propagate", "raise"])
def test_an_empty_batch_ends_the_run_by_its_loss(tmp_path, choice):
    one = holes_trainer(tmp_path, f"{SECTION}.on_nonfinite={choice}", task=EmptyTask)
    with pytest.raises(NonFiniteLossError, match="after 3 steps"):
        one.train()


def test_an_empty_batch_is_an_update_by_gradients_of_0(tmp_path):
    one = holes_trainer(tmp_path, f"{SECTION}.on_nonfinite=skip", task=EmptyTask)
    assert one.train()["nonfinite_steps"] == 0
    assert int(one.optimizer.iterations) == 12


def test_other_errors_of_tensorflow_are_left_alone(tmp_path):
    class WrongTask(TinyTask):
        def build_losses(self, labels, model_outputs, aux_losses=None):
            tf.debugging.Assert(tf.reduce_sum(labels) > 1e9, ["another reason"])
            return super().build_losses(labels, model_outputs, aux_losses)

    config = tiny()
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=WrongTask(config.task))
    with pytest.raises(tf.errors.InvalidArgumentError, match="another reason"):
        one.train()


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("The gradients of these variables are not finite: a/b, c", "a/b, c"),
        ("assertion failed: [The gradients ... are not finite:] [a/b c]\n\t [[node]]", "a/b, c"),
        (
            f"are not finite: {', '.join('abcdefghijkl')}",
            "a, b, c, d, e, f, g, h, i, j, and 2 more",
        ),
        ("assertion failed: [something else] [a]", None),
    ],
)
def test_the_variables_are_read_from_the_error(message, names):
    assert nonfinite_variables(ArithmeticError(message)) == names


@pytest.mark.slow
def test_the_binary_tells_it_without_traceback(tmp_path):
    rate = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=1e30"
    flags = ["--experiment=tiny", "--mode=train", f"--model_dir={tmp_path}"]
    overrides = [f"--params_override={rate}", f"--params_override={SECTION}.on_nonfinite=raise"]
    status, _, err = run(["-m", "tests.training.tiny", *flags, *overrides])
    assert status == 1
    assert "error: after " in err
    assert "tiny/head/kernel" in err
    assert "Traceback" not in err
