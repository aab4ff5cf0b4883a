import dataclasses

import pytest

from optimization import (
    ConfigError,
    DataConfig,
    ExperimentConfig,
    RuntimeConfig,
    TaskConfig,
    TrainerConfig,
    resolve,
)

OPTIMIZER = {
    "optimizer": {"type": "sgd"},
    "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
}


def trainer(**kwargs):
    return TrainerConfig(optimizer_config=OPTIMIZER, **kwargs)


def test_defaults_are_those_of_model_garden():
    config = ExperimentConfig()
    assert config.trainer.steps_per_loop == 1000
    assert config.trainer.summary_interval == 1000
    assert config.trainer.checkpoint_interval == 1000
    assert config.trainer.validation_interval == 1000
    assert config.trainer.validation_steps == -1
    assert config.trainer.max_to_keep == 5
    assert config.trainer.continuous_eval_timeout == 3600
    assert config.trainer.best_checkpoint_metric_comp == "higher"
    assert config.runtime.distribution_strategy == "mirrored"
    assert config.runtime.mixed_precision_dtype is None
    assert config.task.train_data.is_training
    assert not config.task.validation_data.is_training


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        (trainer(validation_steps=0), "validation_steps", "must be > 0, or -1 for all"),
        (
            trainer(best_checkpoint_export_subdir="best"),
            "best_checkpoint_eval_metric",
            "is needed with `best_checkpoint_export_subdir`",
        ),
        (
            trainer(best_checkpoint_eval_metric="accuracy"),
            "best_checkpoint_export_subdir",
            "is needed with `best_checkpoint_eval_metric`",
        ),
        (trainer(validation_summary_subdir="train"), "validation_summary_subdir", "of its own"),
        (trainer(validation_summary_subdir="./train"), "validation_summary_subdir", "of its own"),
        (trainer(validation_summary_subdir="a/.."), "validation_summary_subdir", "inside"),
        (
            trainer(best_checkpoint_export_subdir="./", best_checkpoint_eval_metric="loss"),
            "best_checkpoint_export_subdir",
            "inside",
        ),
        (
            trainer(best_checkpoint_export_subdir="validation", best_checkpoint_eval_metric="loss"),
            "best_checkpoint_export_subdir",
            "holds `validation_summary_subdir`",
        ),
        (trainer(validation_summary_subdir="../x"), "validation_summary_subdir", "inside"),
        (trainer(validation_summary_subdir="/x"), "validation_summary_subdir", "inside"),
        (RuntimeConfig(loss_scale="dynamic"), "loss_scale", "which is None"),
        (
            RuntimeConfig(loss_scale=2.0, mixed_precision_dtype="bfloat16"),
            "loss_scale",
            "is for `mixed_precision_dtype: float16`, which is bfloat16",
        ),
        (
            ExperimentConfig(
                trainer=TrainerConfig(
                    optimizer_config={
                        "optimizer": {"type": "sgd", "sgd": {"loss_scale_factor": 8.0}},
                        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
                    }
                ),
                runtime=RuntimeConfig(mixed_precision_dtype="float16"),
            ),
            "trainer.optimizer_config.optimizer.sgd.loss_scale_factor",
            "`runtime.loss_scale`: set that one",
        ),
        (RuntimeConfig(enable_xla=True, run_eagerly=True), "enable_xla", "`run_eagerly`"),
        (
            RuntimeConfig(enable_xla=True, distribution_strategy="multi_worker_mirrored"),
            "enable_xla",
            "one device only",
        ),
    ],
)
def test_contradictions_are_errors(config, path, message):
    with pytest.raises(ConfigError) as error:
        config.validate()
    (problem,) = error.value.problems
    assert problem.path == path
    assert message in problem.message


@pytest.mark.parametrize(
    ("config_class", "values"),
    [
        (TrainerConfig, {"train_steps": -1}),
        (TrainerConfig, {"validation_steps": -2}),
        (TrainerConfig, {"steps_per_loop": 0}),
        (TrainerConfig, {"summary_interval": 0}),
        (TrainerConfig, {"max_to_keep": 0}),
        (TrainerConfig, {"best_checkpoint_metric_comp": "highest"}),
        (TrainerConfig, {"train_step": 1}),
        (RuntimeConfig, {"distribution_strategy": "tpu"}),
        (RuntimeConfig, {"mixed_precision_dtype": "mixed_float16"}),
        (RuntimeConfig, {"loss_scale": 0}),
        (RuntimeConfig, {"loss_scale": "static"}),
        (RuntimeConfig, {"seed": -1}),
        (RuntimeConfig, {"seed": 2**32}),
        (DataConfig, {"global_batch_size": -1}),
        (DataConfig, {"shuffle": 1}),
    ],
)
def test_impossible_values_are_errors(config_class, values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        config_class(values)


def test_values_that_are_fine():
    RuntimeConfig(mixed_precision_dtype="float16", loss_scale=128).validate()
    RuntimeConfig(mixed_precision_dtype="float16", loss_scale="dynamic").validate()
    trainer(
        best_checkpoint_export_subdir="best", best_checkpoint_eval_metric="loss", train_steps=2e4
    ).validate()


@pytest.mark.parametrize(
    ("mode", "paths"),
    [
        ("train", {"trainer.train_steps", "task.train_data.global_batch_size"}),
        ("eval", {"task.validation_data.global_batch_size"}),
        ("continuous_eval", {"task.validation_data.global_batch_size"}),
        (
            "train_and_eval",
            {
                "trainer.train_steps",
                "task.train_data.global_batch_size",
                "task.validation_data.global_batch_size",
            },
        ),
    ],
)
def test_each_mode_needs_what_it_uses(mode, paths):
    config = ExperimentConfig(trainer=trainer())
    config.validate()
    assert {problem.path for problem in config.problems_in_mode(mode)} == paths
    config.override(
        {
            "trainer": {"train_steps": 1},
            "task": {
                "train_data": {"global_batch_size": 8},
                "validation_data": {"global_batch_size": 8},
            },
        }
    )
    assert config.problems_in_mode(mode) == []


def test_training_data_have_no_end_and_validation_data_have_one():
    config = ExperimentConfig(
        task=TaskConfig(
            train_data=DataConfig(global_batch_size=4),
            validation_data=DataConfig(global_batch_size=4, is_training=True),
        ),
        trainer=trainer(train_steps=1),
    )
    problems = config.problems_in_mode("train_and_eval")
    assert [problem.path for problem in problems] == [
        "task.train_data.is_training",
        "task.validation_data.is_training",
    ]
    config.trainer.validation_steps = 5
    assert config.problems_in_mode("eval") == []


@dataclasses.dataclass
class OwnConfig(TaskConfig):
    width: int = 1


def test_a_task_keeps_its_own_config_class_through_layers():
    base = ExperimentConfig(task=OwnConfig(), trainer=trainer())
    config = resolve(base, [{"task": {"width": 3, "init_checkpoint": "x"}}])
    assert isinstance(config.task, OwnConfig)
    assert config.task.width == 3
    with pytest.raises(ConfigError, match=r"task\.widht: unknown key; did you mean 'width'"):
        resolve(base, [{"task": {"widht": 3}}])


def sized(accumulation=1, **scaling):
    section = {"type": "sgd", "sgd": {"gradient_accumulation_steps": accumulation}}
    return ExperimentConfig(
        task=TaskConfig(train_data=DataConfig(global_batch_size=64, is_training=True)),
        trainer=TrainerConfig(
            train_steps=200,
            steps_per_epoch=20,
            optimizer_config={
                **OPTIMIZER,
                "optimizer": section,
                "warmup": {"type": "linear", "linear": {"warmup_steps": "2 epochs"}},
                "lr_scaling": scaling or None,
            },
        ),
    )


def test_the_optimizer_section_is_sized_by_the_rest_of_the_experiment():
    config = sized(accumulation=4, base_batch_size=128)
    result = config.sized_optimizer_config()
    assert result.warmup.get().warmup_steps == 40
    assert result.lr_scaling.global_batch_size == 64 * 4
    assert result.lr_scaling.factor() == 2.0
    # The experiment keeps what was written.
    assert config.trainer.optimizer_config.warmup.get().warmup_steps == "2 epochs"
    assert config.trainer.optimizer_config.lr_scaling.global_batch_size is None


def test_a_batch_that_is_written_stays_and_without_scaling_there_is_none():
    assert sized(base_batch_size=64, global_batch_size=32).sized_optimizer_config().lr_scaling == (
        sized(base_batch_size=64, global_batch_size=32).trainer.optimizer_config.lr_scaling
    )
    assert sized().sized_optimizer_config().lr_scaling is None


def test_steps_that_cannot_be_known_are_an_error():
    config = sized()
    config.trainer.steps_per_epoch = None
    with pytest.raises(ConfigError, match=r"warmup_steps: '2 epochs' takes `steps_per_epoch`"):
        config.sized_optimizer_config()


@pytest.mark.parametrize(
    ("runtime", "dynamic"),
    [
        ({}, False),
        ({"mixed_precision_dtype": "bfloat16"}, False),
        ({"mixed_precision_dtype": "float16"}, True),
        ({"mixed_precision_dtype": "float16", "loss_scale": "dynamic"}, True),
        ({"mixed_precision_dtype": "float16", "loss_scale": 128}, False),
    ],
)
def test_when_the_loss_scale_adapts_itself(runtime, dynamic):
    config = ExperimentConfig(runtime=RuntimeConfig(**runtime))
    assert config.runtime.scales_dynamically == dynamic
    config.trainer.optimizer_config = {
        **OPTIMIZER,
        "optimizer": {"type": "sgd", "sgd": {"on_nonfinite": "raise"}},
    }
    errors, _ = config.problems()
    assert bool(errors) == dynamic
    for problem in errors:
        assert problem.path == "trainer.optimizer_config.optimizer.sgd.on_nonfinite"


@pytest.mark.parametrize(
    "params",
    [
        {"trainer": {"train_tf_while_loop": True}},
        {"runtime": {"num_gpus": 0}},
        {"restrictions": []},
    ],
)
def test_keys_of_model_garden_alone_are_called_so(params):
    with pytest.raises(
        ConfigError, match="is a setting of Model Garden's own trainer alone; leave"
    ):
        ExperimentConfig(params)
