"""Which skipped updates are too many: counted, and in trainings that end by them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from optimization import optimizers
from optimization.configs.experiment_config import TrainerConfig
from optimization.rules.sgd import SGDConfig
from optimization.training import NonFiniteGradientsError, Trainer, array_batches
from optimization.training.inspection import optimizer_values
from optimization.training.skips import WINDOW, Skips, may_skip
from tests.training.tiny import TinyTask, arrays, run_binary, tiny, trainer

SECTION = "trainer.optimizer_config.optimizer.sgd"


def skips(share=0.9, most=None):
    section = SGDConfig(on_nonfinite="skip", max_consecutive_nonfinite=most)
    return Skips(TrainerConfig(max_skipped_share=share), section, keras.optimizers.SGD())


def first_end(counted, pattern):
    """Returns the step at which a pattern of skips is too much; None for never."""
    for step, skipped in enumerate(pattern, 1):
        if skipped and counted.add(tf.constant(step, tf.int64)):
            assert counted.reason(step)
            return step
        assert counted.reason(step) == ""
    return None


def expected(pattern, row=50, recent=180):
    for step in range(1, len(pattern) + 1):
        last = pattern[:step]
        in_a_row = next((n for n, s in enumerate(reversed(last)) if not s), step)
        if in_a_row >= row or sum(last[-WINDOW:]) >= recent:
            return step
    return None


@pytest.mark.parametrize(
    ("share", "most", "row", "recent"), [(0.9, None, 50, 180), (0.5, 9, 10, 100), (1.0, 8, 9, 200)]
)
def test_the_limits_are_exact(share, most, row, recent):
    random = np.random.default_rng(3)
    for often in (0.3, 0.6, 0.93):
        pattern = (random.random(300) < often).tolist()
        assert first_end(skips(share, most), pattern) == expected(pattern, row, recent)


def test_the_usual_limits():
    assert first_end(skips(), [True] * 50) == 50
    assert first_end(skips(), ([True] * 49 + [False]) * 5) == 3 * 50 + (180 - 3 * 49)
    assert first_end(skips(share=None), ([True] * 49 + [False]) * 5) is None


def test_what_is_told():
    counted = skips()
    for step in (*range(1, 40), *range(41, 91)):
        counted.add(tf.constant(step, tf.int64))
    assert counted.reason(90) == (
        "after 90 steps the last 50 updates were skipped (89 of the last 90), since gradients were "
        "not finite; the limit is max_consecutive_nonfinite of the optimizer"
    )
    assert counted.reason(91) == ""


class BrokenTask(TinyTask):
    """Every label is NaN."""

    def build_inputs(self, params, input_context=None):
        features, labels = arrays(params.is_training)
        return array_batches((features, labels * np.nan), params, input_context)


class ForeignTask(BrokenTask):
    """With an optimizer of Keras, and its own loss scale."""

    def create_optimizer(self, config, runtime=None):
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))


def broken(directory, *overrides, task=BrokenTask):
    lengths = "trainer.train_steps=90,trainer.checkpoint_interval=30,trainer.summary_interval=90"
    config = tiny(lengths, *overrides)
    return Trainer(config, directory, console=Console(quiet=True), task=task(config.task))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        f"{SECTION}.on_nonfinite=skip",
        f"{SECTION}.on_nonfinite=skip,{SECTION}.gradient_accumulation_steps=2",
        f"{SECTION}.on_nonfinite=skip,trainer.norm_summaries=layers,trainer.summary_interval=1",
        f"{SECTION}.on_nonfinite=skip,runtime.run_eagerly=true",
        "runtime.mixed_precision_dtype=float16",
        "foreign",
    ],
)
def test_a_run_ends_when_50_updates_in_a_row_were_skipped(tmp_path, settings):
    task = ForeignTask if settings == "foreign" else BrokenTask
    overrides = ["runtime.mixed_precision_dtype=float16" if settings == "foreign" else settings]
    with pytest.raises(NonFiniteGradientsError, match="after 50 steps the last 50 updates") as e:
        broken(tmp_path, *overrides, task=task).train()
    scaled = settings == "foreign" or "float16" in settings
    assert ("loss scale that has come to" in str(e.value)) == scaled
    assert [path.stem for path in tmp_path.glob("*.index")] == ["ckpt-30"]
    again = broken(tmp_path, *overrides, task=task)  # counts on
    with pytest.raises(NonFiniteGradientsError, match="after 50 steps the last 50 updates"):
        again.train()
    assert again.step == 50


@pytest.mark.slow
def test_the_first_overflows_of_a_loss_scale_are_no_fault(tmp_path):
    """From 2**64 on, it is halved until nothing overflows."""
    config = tiny(
        "trainer.train_steps=90,runtime.mixed_precision_dtype=float16,task.hidden=4",
        f"{SECTION}.on_nonfinite=skip,{SECTION}.max_consecutive_nonfinite=60",
    )
    one = Trainer(config, tmp_path, console=Console(quiet=True))
    one.optimizer.dynamic_scale.assign(2.0**64)
    assert 30 < one.train()["nonfinite_steps"] < 60


def test_what_may_skip():
    inner = keras.optimizers.SGD()
    assert may_skip(optimizers.PipelineOptimizer(inner, on_nonfinite="skip"))
    assert may_skip(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    assert not may_skip(keras.optimizers.SGD())


@pytest.mark.slow
def test_the_binary_ends_with_1(tmp_path):
    """float16 with a rate that makes the weights infinite."""
    rate = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=1e30"
    length = "trainer.train_steps=90,trainer.checkpoint_interval=90"
    settings = f"{rate},runtime.mixed_precision_dtype=float16,{length}"
    flags = ["--experiment=tiny", "--mode=train", f"--model_dir={tmp_path}"]
    status, _, err = run_binary(*flags, f"--params_override={settings}")
    assert status == 1
    assert "error: after " in err
    assert "the last 50 updates were skipped" in err
    assert "Traceback" not in err


def test_a_run_leaves_out_spikes_counts_them_and_goes_on(tmp_path):
    section = "trainer.optimizer_config"
    spikes = f"{section}.skip_spikes={{quantile: 0.8, window: 4, of: [loss, gradient_norm]}}"
    zclip = f"{section}.zclip={{warmup_steps: 2, z_threshold: 0.1}}"
    runs = []
    for name, steps in (("whole", [12]), ("halves", [6, 12])):
        for last in steps:
            found = trainer(tmp_path / name, spikes, zclip, f"trainer.train_steps={last}")
            found.train()
        runs.append(found)
    whole, halves = runs
    counts = [int(run.optimizer.skipped_spikes.numpy()) for run in runs]
    assert 0 < counts[0] == counts[1] < 12
    taken = [int(run.optimizer.iterations.numpy()) for run in runs]
    assert taken == [12 - counts[0]] * 2
    for one, other in zip(whole.optimizer.variables, halves.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    values = optimizer_values(whole.optimizer)
    assert values["skipped_spikes"] == counts[0]
    assert values["clipped_spikes"] == float(whole.optimizer.clipped_spikes)
