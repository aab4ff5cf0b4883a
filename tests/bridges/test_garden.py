"""From Model Garden: the same training, in our words."""

import warnings

import numpy as np
import pytest

from optimization import ConfigWarning, OptimizationConfig, load_optimization_config
from optimization.bridges.writing import written
from optimization.schedules.compose import curve
from tests.bridges import common
from tests.bridges.common import convert, kinds, notes

RESNET = """\
runtime:
  distribution_strategy: tpu
  mixed_precision_dtype: bfloat16
task:
  model: {num_classes: 1001}
  losses: {l2_weight_decay: 0.0001}
trainer:
  train_steps: 1000
  steps_per_loop: 100
  summary_interval: 100
  train_tf_while_loop: true
  optimizer_config:
    optimizer:
      type: sgd
      sgd: {momentum: 0.9}
      adamw: {beta_1: 0.8}
    learning_rate:
      type: cosine
      cosine: {initial_learning_rate: 1.6, decay_steps: 900}
    warmup:
      type: linear
      linear: {warmup_steps: 100, warmup_learning_rate: 0}
"""
BERT = """\
trainer:
  train_steps: 500
  optimizer_config:
    optimizer:
      type: adamw
      adamw:
        weight_decay_rate: 0.01
        exclude_from_weight_decay: [LayerNorm, layer_norm, 'bias:0$']
        clipnorm: null
    ema: {}
    learning_rate:
      type: polynomial
      polynomial: {initial_learning_rate: 0.0001, decay_steps: 500, end_learning_rate: 0.0}
    warmup:
      type: polynomial
      polynomial: {power: 1, warmup_steps: 50}
"""
SECTION = "optimizer: {type: lars, lars: {momentum: 0.9}}\nlearning_rate: {type: constant}\n"


@pytest.mark.parametrize("text", [RESNET, BERT.replace("    ema: {}\n", ""), SECTION])
def test_the_result_means_what_the_file_means(text, tmp_path):
    before = tmp_path / "before.yaml"
    before.write_text(text)
    draft = convert(tmp_path, "garden", text)
    after = tmp_path / "after.yaml"
    after.write_text(written(draft, "title"))
    warnings.simplefilter("ignore", ConfigWarning)  # a section that is not selected
    one, other = (load_optimization_config(str(path)) for path in (before, after))
    assert one.learning_rate.get() == other.learning_rate.get()
    steps = common.around(50, 100, end=500)
    curves = [curve(c.learning_rate.get(), c.warmup.get(), steps) for c in (one, other)]
    np.testing.assert_array_equal(*curves)
    ours, theirs = other.optimizer.get().as_dict(), one.optimizer.get().as_dict()
    for values in (ours, theirs):
        values.pop("exclude_from_weight_decay", None)
    assert ours == theirs


def test_what_only_gardens_trainer_has_is_told(tmp_path):
    draft = convert(tmp_path, "garden", RESNET)
    assert kinds(draft) == ["runtime.distribution_strategy"]
    assert notes(draft) == ["trainer.optimizer_config.optimizer.adamw", "task"]
    assert draft.no_matter == {"of Model Garden's own trainer": ["trainer.train_tf_while_loop"]}
    assert draft.values["task"]["model"] == {"num_classes": 1001}
    assert draft.values["trainer"]["train_steps"] == 1000


def test_patterns_are_written_for_keras_3(tmp_path):
    draft = convert(tmp_path, "garden", BERT)
    section = OptimizationConfig(draft.values["trainer"]["optimizer_config"]).optimizer.adamw
    assert section.exclude_from_weight_decay == ("layer_?norm", "layer_norm", "bias$")
    assert not section.decays("bert/layer_normalization_3/gamma")
    assert not section.decays("bert/dense/bias")
    assert section.decays("bert/dense/kernel")
    assert notes(draft) == ["trainer.optimizer_config.optimizer.adamw.exclude_from_weight_decay"]


def test_an_average_starts_elsewhere(tmp_path):
    draft = convert(tmp_path, "garden", BERT)
    assert kinds(draft) == ["trainer.optimizer_config.ema"]
    config = OptimizationConfig(draft.values["trainer"]["optimizer_config"])
    assert config.ema.average_decay == 0.99


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        (("type: sgd", "type: sgd_dymow"), "optimizer.type"),
        (("momentum", "momentmu"), "optimizer.sgd.momentmu"),
        (("type: cosine", "type: cosin"), "learning_rate.type"),
        (("learning_rate:", "lerning_rate:"), "lerning_rate"),
    ],
)
def test_what_cannot_be_carried_over_is_listed(change, listed, tmp_path):
    draft = convert(tmp_path, "garden", RESNET.replace(*change, 1))
    assert f"trainer.optimizer_config.{listed}" in kinds(draft)
