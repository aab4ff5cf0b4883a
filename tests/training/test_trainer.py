import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from optimization import OptimizerConfig, OptimizerFactory
from optimization.training import (
    CheckpointError,
    NonFiniteLossError,
    Trainer,
    TrainingError,
    run_experiment,
)
from optimization.training.binary import resolve_flags
from optimization.training.data import distributed_batches
from tests.training.tiny import (
    BATCH,
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

NETWORK = "task.hidden=6,task.dropout=0.4"
EMA = "trainer.optimizer_config.ema={average_decay: 0.9}"
SCHEDULE_FREE = (
    "trainer.optimizer_config.optimizer.type=schedule_free_sgd,"
    "trainer.optimizer_config.learning_rate.type=constant,"
    "trainer.optimizer_config.learning_rate.constant.learning_rate=0.1,"
    "trainer.optimizer_config.warmup.type=null"
)
USE_EMA = (
    "trainer.optimizer_config.optimizer.sgd.use_ema=true,"
    "trainer.optimizer_config.optimizer.sgd.ema_momentum=0.9"
)


def test_training_is_momentum_sgd_on_the_batches_in_order(tmp_path):
    """Weights after 12 steps equal a float64 transcription of the whole loop."""
    one = trainer(tmp_path, "task.train_data.shuffle=false,task.train_data.drop_remainder=false")
    weight = np.vstack([one.model.weights[0].numpy(), np.zeros((1, 1))])
    weight = weight.astype("float64")
    features, labels = arrays()
    curve = OptimizerFactory(one.config.trainer.optimizer_config).learning_rate_curve(range(12))
    velocity = np.zeros_like(weight)
    for step in range(12):
        rows = np.arange(step * BATCH, (step + 1) * BATCH) % len(features)
        x = np.hstack([features[rows], np.ones((BATCH, 1))])
        gradient = 2 / BATCH * x.T @ (x @ weight - labels[rows])
        velocity = 0.9 * velocity - curve[step] * gradient
        weight = weight + velocity
    results = one.train()
    trained = np.vstack([v.numpy().reshape(-1, 1) for v in one.model.weights])
    # Twelve steps of float32 arithmetic on values of order 1.
    np.testing.assert_allclose(trained, weight, atol=2e-6)
    np.testing.assert_allclose(results["gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)
    assert one.step == 12
    assert int(one.optimizer.iterations) == 12


@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer.steps_per_loop=1",),
        ("trainer.steps_per_loop=5,trainer.summary_interval=3,trainer.checkpoint_interval=7",),
    ],
)
def test_where_loops_end_changes_nothing(tmp_path, overrides):
    one = trainer(tmp_path / "a", NETWORK, EMA)
    one.train()
    other = trainer(tmp_path / "b", NETWORK, EMA, *overrides)
    other.train(evaluate=True)
    assert_same_bits(weights(other), weights(one))


@pytest.mark.parametrize("steps", [2, 6, 7])
def test_resumed_training_is_the_same_bit_for_bit(tmp_path, steps):
    """Dropout's seeds, momenta, averages, batch statistics and the order of data all go on."""
    whole = trainer(tmp_path / "whole", NETWORK, EMA)
    whole.train()
    first = trainer(tmp_path / "parts", NETWORK, EMA, f"trainer.train_steps={steps}")
    first.train()
    second = trainer(tmp_path / "parts", NETWORK, EMA)
    second.train()
    assert_same_bits(weights(second), weights(whole))
    assert_same_bits(stored(tmp_path / "parts/ckpt-12"), stored(tmp_path / "whole/ckpt-12"))


def test_every_variable_is_in_the_checkpoint_by_its_path(tmp_path):
    one = trainer(tmp_path, NETWORK, EMA)
    one.train()
    names = {name.split("/.ATTR")[0].replace(".S", "/") for name in stored(tmp_path / "ckpt-12")}
    assert {f"model/{v.path}" for v in one.model.variables} <= names
    assert "model/seed_generator/seed_generator_state" in names  # Of the dropout
    own = {"trainer/global_step", "trainer/evaluation_due", "trainer/means_state"}
    assert own <= names
    assert len(names) == len(one.model.variables) + len(one.optimizer.variables) + len(own)


def test_a_trainer_prints_its_task_its_place_and_its_step(tmp_path):
    text = repr(trainer(tmp_path))
    assert text.startswith("Trainer(TinyTask(TinyConfig(train_data=DataConfig(global_batch_size=8,")
    assert text.endswith(f"model_dir={str(tmp_path)!r}, step=0 of 12)")


def test_a_run_that_is_complete_is_left_alone(tmp_path):
    trainer(tmp_path).train()
    again = trainer(tmp_path)
    assert again.train() == {}
    assert again.train(evaluate=True).keys() == {"validation loss", "validation mae"}
    assert again.step == 12


def test_same_seed_same_run_and_other_seed_other_run(tmp_path):
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        one = trainer(tmp_path / name, NETWORK, f"runtime.seed={seed}")
        one.train()
        runs.append(weights(one))
    assert_same_bits(runs[1], runs[0])
    assert not np.array_equal(runs[2]["tiny/hidden/kernel"], runs[0]["tiny/hidden/kernel"])


def test_checkpoints_are_kept_to_the_number_asked_for(tmp_path):
    trainer(tmp_path, "trainer.checkpoint_interval=2,trainer.max_to_keep=3").train()
    assert sorted(path.stem for path in tmp_path.glob("*.index")) == [
        "ckpt-10",
        "ckpt-12",
        "ckpt-8",
    ]


SECTION = "trainer.optimizer_config."


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("task.hidden=6", "task.hidden: was 0, is 6"),
        (SECTION + "optimizer.type=adamw", "optimizer.type: was sgd, is adamw"),
        (SECTION + "optimizer.sgd.momentum=0.0", "optimizer.sgd.momentum: was 0.9, is 0.0"),
        (SECTION + "ema.average_decay=0.9", "ema: was not set, is set"),
        (SECTION + "optimizer.sgd.use_ema=true", "optimizer.sgd.use_ema: was false, is true"),
        (
            SECTION + "optimizer.sgd.gradient_accumulation_steps=2",
            "gradient_accumulation_steps: was 1, is 2",
        ),
        (
            SECTION + "param_groups=[{match: bias, optimizer: {type: adam}}]",
            'param_groups: was [], is ["bias"]',
        ),
        ("runtime.mixed_precision_dtype=float16", "mixed_precision_dtype: was not set, is float16"),
    ],
)
def test_a_checkpoint_of_other_settings_is_an_error_that_tells_them(finished, setting, told):
    other = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=0.01"
    going_on = "trainer.train_steps=20,trainer.resume=continue"
    with pytest.raises(CheckpointError, match="was made with other settings") as error:
        trainer(finished, setting, other, going_on).train()
    assert len(str(error.value).splitlines()) == 3  # The learning rate does not matter.
    assert told in str(error.value)
    assert f"task.init_checkpoint={finished} starts from these weights" in str(error.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    trainer(directory).train()
    return directory


def test_a_checkpoint_of_another_model_and_the_same_settings_lists_variables(finished):
    class OtherTask(TinyTask):
        def build_model(self):
            import keras

            return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="tiny")

    with pytest.raises(CheckpointError, match="does not fit the model and the optimizer") as error:
        trainer(finished, task=OtherTask(tiny().task)).train()
    assert "missing from the checkpoint" in str(error.value)
    assert "    model: tiny/dense/kernel" in str(error.value).splitlines()


def test_summaries_hold_the_curve_the_loss_and_the_metrics(tmp_path):
    one = trainer(tmp_path, "trainer.summary_interval=1", "trainer.steps_per_loop=4")
    one.train(evaluate=True)
    train = read_summaries(tmp_path / "train")
    steps = np.arange(13)
    curve = OptimizerFactory(one.config.trainer.optimizer_config).learning_rate_curve(steps)
    assert sorted(train["learning_rate"]) == list(steps)
    values = [train["learning_rate"][step] for step in steps]
    # The schedule is computed in float32, the curve in float64.
    np.testing.assert_allclose(values, curve, rtol=1e-6, atol=1e-9)
    assert values[0] == 0.0
    for tag in ("loss", "mae", "gradient_norm"):
        assert sorted(train[tag]) == list(range(1, 13))
    validation = read_summaries(tmp_path / "validation")
    assert sorted(validation["loss"]) == [6, 12]
    assert sorted(validation["mae"]) == [6, 12]


def test_loss_of_a_summary_is_the_mean_since_the_one_before(tmp_path):
    one = trainer(tmp_path / "a", "trainer.summary_interval=1")
    one.train()
    each = read_summaries(tmp_path / "a/train")["loss"]
    two = trainer(tmp_path / "b", "trainer.summary_interval=4", "trainer.steps_per_loop=3")
    two.train()
    means = read_summaries(tmp_path / "b/train")["loss"]
    assert sorted(means) == [4, 8, 12]
    for step, mean in means.items():
        expected = np.mean([each[s] for s in range(step - 3, step + 1)])
        np.testing.assert_allclose(mean, expected, rtol=1e-6)  # float32 sums of four


def test_evaluation_is_over_all_examples_weighted_alike(tmp_path):
    """40 examples in batches of 16: the last one has 8."""
    one = trainer(tmp_path)
    values = one.evaluate()
    features, labels = arrays(is_training=False)
    errors = np.array(one.model(features)) - labels
    np.testing.assert_allclose(values["loss"], np.mean(errors**2), rtol=1e-6)  # float32 means
    np.testing.assert_allclose(values["mae"], np.mean(np.abs(errors)), rtol=1e-6)
    limited = trainer(tmp_path, "trainer.validation_steps=2").evaluate()
    np.testing.assert_allclose(limited["loss"], np.mean(errors[:32] ** 2), rtol=1e-6)


@pytest.mark.parametrize(
    "average", [EMA, USE_EMA, SCHEDULE_FREE], ids=["ema", "use_ema", "schedule-free"]
)
def test_evaluation_uses_the_averages_and_gives_the_weights_back(tmp_path, average):
    one = trainer(tmp_path, average)
    one.train()
    before = weights(one)
    values = one.evaluate()
    assert_same_bits(weights(one), before)
    features, labels = arrays(is_training=False)
    plain = np.mean((np.array(one.model(features)) - labels) ** 2)
    with one.optimizer.averaged():
        averaged = np.mean((np.array(one.model(features)) - labels) ** 2)
    np.testing.assert_allclose(values["loss"], averaged, rtol=1e-6)  # float32 means
    assert abs(plain - averaged) > 1e-3 * plain


def test_the_best_weights_are_kept_with_their_metrics(tmp_path):
    best = "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=loss"
    lower = "trainer.best_checkpoint_metric_comp=lower"
    one = trainer(tmp_path, EMA, best, lower, "trainer.validation_interval=2")
    one.train(evaluate=True)
    losses = read_summaries(tmp_path / "validation")["loss"]
    info = json.loads((tmp_path / "best/info.json").read_text())
    assert info["step"] == min(losses, key=losses.get)
    assert info["metric"] == "loss"
    # The summaries are float32.
    np.testing.assert_allclose(info["metrics"]["loss"], min(losses.values()), rtol=1e-6)
    # What was kept is what was evaluated: the averages of that step, usable as a start.
    fresh = trainer(tmp_path / "new", f"task.init_checkpoint={tmp_path / 'best'}")
    np.testing.assert_allclose(fresh.evaluate()["loss"], info["metrics"]["loss"], rtol=1e-6)


def test_the_best_of_an_earlier_part_of_the_run_stays_the_best(tmp_path):
    # The rate is so high that the loss only grows.
    settings = (
        "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=loss",
        "trainer.best_checkpoint_metric_comp=lower,trainer.validation_interval=1",
        "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=3.0",
    )
    trainer(tmp_path, *settings, "trainer.train_steps=4").train(evaluate=True)
    first = json.loads((tmp_path / "best/info.json").read_text())
    trainer(tmp_path, *settings, "trainer.train_steps=8").train(evaluate=True)
    assert json.loads((tmp_path / "best/info.json").read_text()) == first
    assert first["step"] < 4


def test_a_best_metric_that_no_evaluation_gives_is_an_error(tmp_path):
    one = trainer(
        tmp_path,
        "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=auc",
    )
    with pytest.raises(TrainingError, match=r"'auc'; the evaluation gives loss, mae"):
        one.train(evaluate=True)


def test_a_loss_that_explodes_ends_the_run_and_saves_nothing(tmp_path):
    rate = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=1e30"
    with pytest.raises(NonFiniteLossError, match="smaller learning rate"):
        trainer(tmp_path, rate, "trainer.checkpoint_interval=1").train()
    finite = [stored(str(path).removesuffix(".index")) for path in tmp_path.glob("*.index")]
    # The step before the loss was seen to be infinite may have been saved, none after it.
    assert len(finite) < 12


class OwnOptimizerTask(TinyTask):
    made = None

    @classmethod
    def create_optimizer(cls, optimizer_config, runtime_config=None):
        cls.made = keras.optimizers.Adam(0.01)
        cls.arguments = (optimizer_config, runtime_config)
        return cls.made


def test_the_optimizer_that_the_task_creates_is_used(tmp_path):
    config = tiny(NETWORK)
    task = OwnOptimizerTask(config.task)
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=task)
    results = one.train(evaluate=True)
    assert one.optimizer is OwnOptimizerTask.made
    assert OwnOptimizerTask.arguments == (config.trainer.optimizer_config, config.runtime)
    assert int(one.optimizer.iterations) == 12
    assert results["learning_rate"] == pytest.approx(0.01)
    names = [name for name in stored(tmp_path / "ckpt-12") if name.startswith("optimizer/")]
    assert len(names) == len(one.optimizer.variables)


class UnbuiltTask(TinyTask):
    def build_model(self):
        return keras.Sequential([keras.layers.Dense(1)])


def test_a_model_that_is_not_built_is_an_error(tmp_path):
    config = tiny()
    with pytest.raises(TrainingError, match="must return a model that is built"):
        Trainer(config, tmp_path, task=UnbuiltTask(config.task))


def test_a_pattern_that_matches_no_variable_is_an_error(tmp_path):
    config = tiny()
    config.trainer.optimizer_config.optimizer = OptimizerConfig(
        type="adamw", adamw={"exclude_from_weight_decay": ["no_such_thing"]}
    )
    with pytest.raises(TrainingError, match="trainer.optimizer_config: .*no_such_thing"):
        Trainer(config, tmp_path, console=Console(quiet=True))


def test_weights_start_from_a_checkpoint_of_another_run(tmp_path):
    source = trainer(tmp_path / "source", NETWORK)
    source.train()
    for path in (tmp_path / "source", tmp_path / "source/ckpt-12"):
        one = trainer(tmp_path / "new", NETWORK, f"task.init_checkpoint={path}", EMA)
        for mine, theirs in zip(one.model.variables, source.model.variables, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
        # The average starts from the weights, those that were loaded.
        with one.optimizer.averaged():
            np.testing.assert_array_equal(one.model.weights[0], source.model.weights[0])
    assert one.step == 0


def test_a_start_that_is_not_there_or_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        trainer(tmp_path / "new", f"task.init_checkpoint={tmp_path / 'missing'}")
    trainer(tmp_path / "source").train()
    with pytest.raises(CheckpointError, match="missing from the checkpoint"):
        trainer(tmp_path / "new", NETWORK, f"task.init_checkpoint={tmp_path / 'source'}")


@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [
        # bfloat16 has 8 bits of mantissa, float16 has 11; the sums are over few terms.
        ("bfloat16", None, 0.1),
        ("float16", "dynamic", 0.02),
        ("float16", 64.0, 0.02),
    ],
)
def test_mixed_precision_trains_like_float32(tmp_path, dtype, scale, tolerance):
    plain = trainer(tmp_path / "a", "task.hidden=6")
    expected = plain.train(evaluate=True)
    before = keras.config.dtype_policy().name
    runtime = f"runtime.mixed_precision_dtype={dtype}"
    if scale is not None:
        runtime += f",runtime.loss_scale={scale}"
    mixed = trainer(tmp_path / "b", "task.hidden=6", runtime)
    assert keras.config.dtype_policy().name == before
    assert mixed.model.get_layer("hidden").compute_dtype == dtype
    assert mixed.model.get_layer("hidden").kernel.dtype == "float32"
    dynamic = dtype == "float16" and scale != 64.0
    assert isinstance(mixed.optimizer, keras.optimizers.LossScaleOptimizer) == dynamic
    if dynamic:
        mixed.optimizer.dynamic_scale.assign(64.0)  # Keras' 2^15 overflows in the first steps.
    values = mixed.train(evaluate=True)
    for name in ("loss", "gradient_norm", "validation loss", "learning_rate"):
        np.testing.assert_allclose(values[name], expected[name], rtol=tolerance, err_msg=name)


def test_dynamic_loss_scale_skips_what_overflows_and_resumes(tmp_path):
    """Keras starts at a scale of 2^15, which overflows float16 here; the scale then halves."""
    settings = ("task.hidden=6", "runtime.mixed_precision_dtype=float16")
    big = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=1e-4"
    whole = trainer(tmp_path / "whole", *settings, big)
    whole.optimizer.dynamic_scale.assign(2.0**24)
    whole.train()
    assert whole.step == 12
    skipped = 12 - int(whole.optimizer.iterations)
    assert skipped > 0
    assert float(whole.optimizer.dynamic_scale) == 2.0 ** (24 - skipped)
    first = trainer(tmp_path / "parts", *settings, big, "trainer.train_steps=5")
    first.optimizer.dynamic_scale.assign(2.0**24)
    first.train()
    second = trainer(tmp_path / "parts", *settings, big)
    second.train()
    assert_same_bits(weights(second), weights(whole))


@pytest.mark.parametrize("setting", ["runtime.enable_xla=true", "runtime.run_eagerly=true"])
def test_xla_and_eager_execution_train_alike(tmp_path, setting):
    plain = trainer(tmp_path / "a", "task.hidden=6")
    plain.train()
    other = trainer(tmp_path / "b", "task.hidden=6", setting)
    other.train(evaluate=True)
    expected = weights(plain)
    for name, value in weights(other).items():
        # XLA may order float32 sums otherwise, over twelve steps.
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_xla_compiles_the_replica_step(tmp_path):
    one = trainer(tmp_path, "runtime.enable_xla=true")
    batch = next(iter(distributed_batches(one, one.config.task.train_data)))
    hlo = one._steps._forward_backward.experimental_get_compiler_ir(batch)(stage="hlo")
    assert "HloModule" in hlo


class ExtraLogsTask(TinyTask):
    def train_step(self, inputs, model, optimizer, metrics):
        gradients, logs = super().train_step(inputs, model, optimizer, metrics)
        return gradients, {**logs, "twice": 2 * logs["loss"]}


def test_other_numbers_that_a_step_returns_are_reported(tmp_path):
    config = tiny()
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=ExtraLogsTask(config.task))
    values = one.train()
    np.testing.assert_allclose(values["twice"], 2 * values["loss"], rtol=1e-6)  # float32 means


class NoLossTask(TinyTask):
    def validation_step(self, inputs, model, metrics):
        return {"losss": tf.constant(0.0)}


def test_a_step_without_loss_is_an_error(tmp_path):
    config = tiny()
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=NoLossTask(config.task))
    with pytest.raises(ValueError, match=r"must return its 'loss', received: \['losss'\]"):
        one.evaluate()


class Shares(keras.metrics.Metric):
    """Has several results, or one that is no scalar."""

    def __init__(self, value):
        super().__init__(name="shares")
        self.value = value

    def update_state(self, labels, outputs):
        pass

    def result(self):
        return self.value


@pytest.mark.parametrize("vector", [False, True])
def test_metrics_of_several_numbers(tmp_path, vector):
    value = tf.constant([1.0, 2.0]) if vector else {"a": tf.constant(1.0), "b": 2.0}

    class SharesTask(TinyTask):
        def build_metrics(self, training):
            return [Shares(value)]

    config = tiny()
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=SharesTask(config.task))
    if vector:
        with pytest.raises(ValueError, match=r"'shares' must be a scalar.*shape \(2,\)"):
            one.evaluate()
    else:
        assert {"shares/a": 1.0, "shares/b": 2.0}.items() <= one.evaluate().items()


def test_training_data_that_end_are_an_error(tmp_path):
    class ShortTask(TinyTask):
        def build_inputs(self, params, input_context=None):
            return super().build_inputs(params, input_context).take(7)

    config = tiny()
    one = Trainer(config, tmp_path, console=Console(quiet=True), task=ShortTask(config.task))
    with pytest.raises(TrainingError, match=r"ended before step 8: ShortTask.build_inputs\(\)"):
        one.train()


def test_another_backend_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(TrainingError, match="KERAS_BACKEND=tensorflow"):
        trainer(tmp_path)


def test_the_written_params_replay_the_run_exactly(tmp_path):
    schedule = (
        "trainer.optimizer_config={learning_rate: {cosine: {decay_steps: 9}}, "
        "warmup: {linear: {warmup_steps: 4}}}"
    )
    config = tiny(NETWORK, EMA, "runtime.seed=3,trainer.train_steps=9", schedule)
    run_experiment(config, "train_and_eval", tmp_path / "a", console=Console(quiet=True))
    replayed = resolve_flags("tiny", [tmp_path / "a/params.yaml"])
    assert replayed == config
    run_experiment(replayed, "train_and_eval", tmp_path / "b", console=Console(quiet=True))
    assert_same_bits(stored(tmp_path / "b/ckpt-9"), stored(tmp_path / "a/ckpt-9"))
    assert (tmp_path / "b/params.yaml").read_text() == (tmp_path / "a/params.yaml").read_text()


def test_a_process_that_is_not_the_chief_saves_nothing(tmp_path):
    one = trainer(tmp_path / "run")
    one.chief = False
    one.save()
    assert list(tmp_path.iterdir()) == []
