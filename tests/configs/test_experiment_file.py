import pytest

from optimization.configs.experiment_file import surroundings
from tests.configs.reading import parse

GARDEN = """\
task: {model: {filterz: 3}, train_stepz: 1}
trainer:
  train_steps: 1000
  validation_steps: -1
  continuous_eval_timeout: null
  train_tf_while_loop: true
  train_tf_function: true
  eval_tf_function: true
  eval_tf_while_loop: false
  allow_tpu_summary: false
  loss_upper_bound: 1000000.0
  recovery_begin_steps: 0
  recovery_max_trials: 0
  preemption_on_demand_checkpoint: true
  best_ema_checkpoint_export_subdir: best
  best_ema_checkpoint_eval_metric: accuracy
  best_ema_checkpoint_metric_comp: higher
  trainer_type: interleaving
  accumulation_steps: 4
  pipeline_sparse_and_dense_execution: false
  what_a_project_has_of_its_own: 3
  optimizer_config: {optimizer: {type: no such type}}
runtime:
  distribution_strategy: tpu
  mixed_precision_dtype: bfloat16
  loss_scale: dynamic
  tpu: null
  num_gpus: 8
  all_reduce_alg: nccl
  batchnorm_spatial_persistent: true
  num_cores_per_replica: 1
  default_shard_dim: -1
  use_tpu_mp_strategy: false
restrictions: [a != None]
"""


def found(text):
    return [str(problem) for problem in surroundings(parse(text, "f.yaml"))]


def test_what_is_model_gardens_is_left_alone():
    assert found(GARDEN) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trainer: {train_stepz: 3}", "trainer.train_stepz: unknown key; did you mean 'train_ste"),
        ("trainer: {steps_per_loop: 1,5}", "trainer.5: unknown key; between { and } a comma ends"),
        ("trainer: {trian_steps: 3}", "trainer.trian_steps: unknown key; did you mean 'train_ste"),
        ("trainer: {num_train_steps: 3}", "trainer.num_train_steps: unknown key; did you mean 't"),
        ("trainer: {Max_To_Keep: 3}", "trainer.Max_To_Keep: unknown key; did you mean 'max_to_ke"),
        ("trainer: {optimiser_config: 3}", "trainer.optimiser_config: unknown key; did you mean "),
        ("runtime: {sed: 3}", "runtime.sed: unknown key; did you mean 'seed'?"),
        ("runtime: {mixed_precision: float16}", "runtime.mixed_precision: unknown key; did you m"),
        ("trainer: {seed: 3}", "trainer.seed: unknown key; did you mean 'runtime.seed'?"),
        ("runtime: {train_steps: 3}", "runtime.train_steps: unknown key; did you mean 'trainer."),
        (
            "trainer: {learning_rate: 0.1}",
            "trainer.learning_rate: unknown key; did you mean 'trainer.optimizer_config.learning_",
        ),
        ("runtme: {}", "runtme: unknown key; did you mean 'runtime'?"),
        ("train_steps: 5", "train_steps: unknown key; did you mean 'trainer.train_steps'?"),
        ("trainer: {train_steps: '3'}", "trainer.train_steps: expected an integer, got '3' (tex"),
        ("trainer: {validation_interval: 0}", "trainer.validation_interval: must be > 0, got 0"),
        ("trainer: {best_checkpoint_metric_comp: highr}", "did you mean 'higher'?"),
        ("runtime: {distribution_strategy: mirored}", "did you mean 'mirrored'?"),
        ("runtime: {loss_scale: -1}", "runtime.loss_scale: "),
        ("runtime: 3", "runtime: expected a mapping, got 3"),
    ],
)
def test_near_keys_and_wrong_values_are_errors(text, problem):
    problems = found(text)
    assert len(problems) == 1
    assert problems[0].startswith("f.yaml:1: ")
    assert problem in problems[0]
