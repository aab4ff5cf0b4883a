"""Groups, clips and sizes: what the trainer tells of them, and what it makes of them."""

import io

import numpy as np
import pytest
from rich.console import Console

from optimization import OptimizationConfig
from optimization.optimizers import effective_learning_rates
from optimization.training import Trainer, TrainingError
from tests.training.tiny import (
    assert_same_bits,
    read_summaries,
    stored,
    tiny,
    trainer,
    weights,
)

pytestmark = pytest.mark.slow

OPTIMIZER = "trainer.optimizer_config"
GROUPS = (
    "task.hidden=4",
    OPTIMIZER + '.param_groups=[{match: "hidden/", learning_rate_multiplier: 0.1, name: slow}, '
    "{layer_type: BatchNormalization, freeze: true}]",
)


def told(directory, *overrides):
    """Trains; returns the trainer, its results and the lines it wrote."""
    out = io.StringIO()
    one = Trainer(tiny(*overrides), directory, console=Console(file=out, width=200))
    return one, one.train(), out.getvalue().splitlines()


def test_groups_are_told_once_and_reported_one_by_one(tmp_path):
    one, results, lines = told(tmp_path, *GROUPS, "trainer.summary_interval=1")
    (row,) = [line for line in lines if "slow (" in line]
    assert "SGD" in row
    assert row.split()[:2] == ["2", "variables"]
    (frozen,) = [line for line in lines if "frozen" in line]
    assert "BatchNormalization" in frozen
    summaries = read_summaries(tmp_path / "train")
    steps = sorted(summaries["learning_rate"])
    assert steps == list(range(13))
    for step in steps:
        assert summaries["learning_rate/default"][step] == summaries["learning_rate"][step]
        slow = 0.1 * summaries["learning_rate"][step]
        assert summaries["learning_rate/slow"][step] == pytest.approx(slow, rel=1e-6)  # float32
    assert "learning_rate/slow" in results
    gamma = one.model.get_layer("norm").gamma
    np.testing.assert_array_equal(gamma.numpy(), np.ones(4))


def test_without_groups_nothing_is_told_of_them(tmp_path):
    _, results, lines = told(tmp_path)
    assert not [name for name in results if name.startswith("learning_rate/")]
    assert all(line.startswith("step ") for line in lines)


def test_groups_resume_bit_for_bit(tmp_path):
    whole = trainer(tmp_path / "whole", *GROUPS)
    whole.train()
    trainer(tmp_path / "parts", *GROUPS, "trainer.train_steps=5").train()
    resumed = trainer(tmp_path / "parts", *GROUPS)
    resumed.train()
    assert_same_bits(weights(resumed), weights(whole))
    assert_same_bits(stored(tmp_path / "parts/ckpt-12"), stored(tmp_path / "whole/ckpt-12"))


def test_a_rule_that_matches_nothing_is_an_error_with_the_nearest_paths(tmp_path):
    groups = OPTIMIZER + '.param_groups=[{match: "heads/", freeze: true}]'
    with pytest.raises(TrainingError, match=r"trainer\.optimizer_config: .*tiny/head/kernel"):
        trainer(tmp_path, groups)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_norm_before_the_clip_and_the_share_of_clipped_steps(tmp_path, accumulation):
    settings = (
        f"{OPTIMIZER}.optimizer.sgd.gradient_accumulation_steps={accumulation}",
        f"task.train_data.global_batch_size={8 // accumulation}",
        "trainer.summary_interval=1",
    )
    trainer(tmp_path / "free", *settings, "trainer.train_steps=2").train()
    norm = read_summaries(tmp_path / "free/train")["gradient_norm"][1]
    assert norm > 0
    for name, bound, share in (("high", 2 * norm, 0.0), ("low", norm / 100, 1.0)):
        clip = f"{OPTIMIZER}.optimizer.sgd.global_clipnorm={bound}"
        trainer(tmp_path / name, *settings, clip).train()
        summaries = read_summaries(tmp_path / name / "train")
        # The rate of the first step is 0, so that the second has the norm of another batch.
        assert summaries["gradient_norm"][1] == pytest.approx(norm, rel=1e-6)  # float32
        assert summaries["clipped_share"][1] == share


@pytest.mark.parametrize("accumulation", [1, 2])
def test_what_is_frozen_for_now_has_no_part_in_the_norm(tmp_path, accumulation):
    settings = (
        f"{OPTIMIZER}.optimizer.sgd.gradient_accumulation_steps={accumulation}",
        "task.hidden=4",
        OPTIMIZER + '.param_groups=[{match: "hidden/", freeze_steps: 2}]',
        "trainer={summary_interval: 1, norm_summaries: layers, train_steps: 4}",
    )
    trainer(tmp_path, *settings).train()
    summaries = read_summaries(tmp_path / "train")
    layers = [name for name in summaries if name.startswith("gradient_norm/")]
    for step in range(1, 5):
        own = [n for n in layers if step > 2 or "hidden" not in n]
        assert 0 < len(own) <= len(layers)
        norm = np.sqrt(sum(summaries[name][step] ** 2 for name in own))
        assert summaries["gradient_norm"][step] == pytest.approx(norm, rel=1e-5)  # float32
        assert all(summaries[name][step] > 0 for name in layers)


def test_the_rate_is_scaled_by_the_batch_of_an_update(tmp_path):
    settings = (
        "task.train_data.global_batch_size=4",
        f"{OPTIMIZER}.optimizer.sgd.gradient_accumulation_steps=2",
        OPTIMIZER + ".lr_scaling={rule: linear, base_batch_size: 2}",
    )
    one, _, lines = told(tmp_path / "scaled", *settings)
    assert lines[0] == "learning rate x 4: batch 8 / 2, linear"
    assert one.optimizer_config.lr_scaling.global_batch_size == 8
    assert one.config.trainer.optimizer_config.lr_scaling.global_batch_size is None
    plain = trainer(tmp_path / "plain", "trainer.summary_interval=1")
    plain.train()
    rates = read_summaries(tmp_path / "plain/train")["learning_rate"]
    scaled = read_summaries(tmp_path / "scaled/train")["learning_rate"]
    for step, rate in scaled.items():
        assert rate == pytest.approx(4 * rates[step], rel=1e-6, abs=1e-12)  # float32
    assert scaled[4] > 0


def test_durations_become_steps(tmp_path):
    written = trainer(
        tmp_path / "numbers",
        f"{OPTIMIZER}.warmup.linear.warmup_steps=3",
        f"{OPTIMIZER}.learning_rate.cosine.decay_steps=12",
    )
    sized = trainer(
        tmp_path / "durations",
        "trainer.steps_per_epoch=6",
        f"{OPTIMIZER}.warmup.linear.warmup_steps=25%",
        f"{OPTIMIZER}.learning_rate.cosine.decay_steps=2 epochs",
    )
    assert sized.optimizer_config.warmup.get().warmup_steps == 3
    for one in (written, sized):
        one.train()
    assert_same_bits(weights(sized), weights(written))


def adafactor(**section):
    own = {} if "variant" in section else {"learning_rate": {"type": "constant"}}
    return OptimizationConfig({"optimizer": {"type": "adafactor", "adafactor": section}, **own})


@pytest.mark.parametrize("accumulation", [1, 2])
def test_adafactors_effective_rate_is_reported(tmp_path, accumulation):
    config = tiny("task.hidden=4", "trainer.summary_interval=1", "trainer.train_steps=3")
    config.trainer.optimizer_config = adafactor(
        variant="hf", gradient_accumulation_steps=accumulation
    )
    one = Trainer(config, tmp_path, console=Console(quiet=True))
    one.train()
    summaries = read_summaries(tmp_path / "train")
    assert sorted(summaries["effective_learning_rate"]) == [1, 2, 3]
    assert summaries["learning_rate"][3] == pytest.approx(1e-2, rel=1e-6)  # float32
    scales = [max(1e-3, np.sqrt((v.numpy() ** 2).mean())) for v in one.model.trainable_variables]
    expected = 1e-2 * np.mean(scales)
    assert summaries["effective_learning_rate"][3] == pytest.approx(expected, rel=1e-6)
    relative = effective_learning_rates(one.optimizer)
    assert sorted(relative) == sorted(v.path for v in one.model.trainable_variables)


def test_an_absolute_step_has_no_other_rate(tmp_path):
    config = tiny("trainer.summary_interval=1", "trainer.train_steps=2")
    config.trainer.optimizer_config = adafactor(multiply_by_parameter_scale=False)
    Trainer(config, tmp_path, console=Console(quiet=True)).train()
    assert "effective_learning_rate" not in read_summaries(tmp_path / "train")
