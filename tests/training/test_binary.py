import re
import types

import pytest

from optimization import ConfigError, ConfigWarning
from optimization.configs.errors import Problem, warn
from optimization.training import TrainingError, binary
from optimization.training.binary import resolve_flags
from tests.training.tiny import assert_same_bits, read_summaries, run, run_binary, stored, trainer


def call(capsys, model_dir, experiment="tiny", files=(), overrides=(), mode="train"):
    """Runs the binary's body in this process; returns its exit status and what it said."""
    flags = types.SimpleNamespace(
        experiment=experiment,
        config_file=[str(path) for path in files],
        params_override=list(overrides),
        mode=mode,
        model_dir=model_dir and str(model_dir),
    )
    status = binary._reporting(lambda: binary._run_flags(["binary"], flags))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_layers_in_their_order(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("trainer: {train_steps: 20, max_to_keep: 2}\ntask: {hidden: 3}\n")
    second.write_text("trainer: {train_steps: 30}\n")
    config = resolve_flags(
        "tiny", [first, second], ["trainer.train_steps=40,trainer.summary_interval=7", "{task: {}}"]
    )
    assert config.trainer.train_steps == 40
    assert config.trainer.summary_interval == 7
    assert config.trainer.max_to_keep == 2
    assert config.task.hidden == 3
    assert str(config.origin_of("task.hidden")) == f"{first}:2"


def test_every_mistake_of_every_layer_is_told_at_once(tmp_path):
    file = tmp_path / "mistakes.yaml"
    file.write_text("trainer:\n  train_stepps: 3\n  max_to_keep: 0\n")
    with pytest.raises(ConfigError) as error:
        resolve_flags(
            "tiny",
            [file, tmp_path / "missing.yaml"],
            ["task.hidden=many", "task.validation_data.global_batch_size=0"],
        )
    text = str(error.value)
    assert f"{file}:2: trainer.train_stepps: unknown key; did you mean 'train_steps'?" in text
    assert f"{file}:3: trainer.max_to_keep: must be > 0, got 0" in text
    assert "missing.yaml: cannot be read" in text
    assert "task.hidden: expected an integer, got 'many' (text)" in text
    assert "validation_data.global_batch_size: must be > 0 in the mode 'train_and_eval'" in text


def test_another_optimizer_than_the_experiments_own_is_no_cause_for_doubt():
    config = resolve_flags("tiny", (), ["trainer.optimizer_config.optimizer.type=adam"])
    assert config.trainer.optimizer_config.optimizer.type == "adam"


def test_a_value_written_to_what_is_not_selected_is_doubted():
    with pytest.warns(ConfigWarning, match="--params_override .*optimizer.adam: is set, but"):
        resolve_flags("tiny", (), ["trainer.optimizer_config.optimizer.adam.beta_1=0.8"])


def test_what_the_mode_needs_is_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer.train_steps: must be > 0 in the mode 'train'"):
        resolve_flags("tiny", (), ["trainer.train_steps=0"], "train")
    assert resolve_flags("tiny", (), ["trainer.train_steps=0"], "eval").trainer.train_steps == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experiment": "tinny"}, "error: unknown experiment 'tinny'; did you mean 'tiny'?"),
        ({"experiment": None}, r"error: --experiment is required; registered: .*tiny"),
        ({"model_dir": None}, "error: --model_dir is required"),
        ({"model_dir": ""}, "error: --model_dir is required"),
        ({"files": ["nowhere.yaml"]}, r"error: nowhere.yaml: cannot be read"),
        ({"overrides": ["trainer.train_steps"]}, "write `trainer.train_steps=VALUE`"),
        ({"overrides": ["trainer.best_checkpoint_eval_metric=loss"]}, "is needed with"),
        ({"mode": "eval"}, "error: there is no checkpoint in .* to evaluate"),
        (
            {"mode": "continuous_eval", "overrides": ["trainer.continuous_eval_timeout=0"]},
            r"error: no checkpoint came to .* in 0 s",
        ),
        (
            {
                "overrides": [
                    "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=1e30"
                ]
            },
            r"error: the loss is (inf|nan) after \d+ steps",
        ),
        ({"overrides": ["task.train_data.global_batch_size=64"]}, None),
        (
            {
                "overrides": [
                    "task.train_data.global_batch_size=64,task.train_data.drop_remainder=true"
                ]
            },
            "error: `global_batch_size` is 64, but there are only 40 examples",
        ),
    ],
)
def test_mistakes_are_told_without_traceback(tmp_path, capsys, arguments, message):
    status, _, err = call(capsys, **{"model_dir": tmp_path / "run", **arguments})
    if message is None:  # 64 of 40 examples is fine where batches run on into the next epoch
        assert status == 0, err
        return
    assert status == 1
    assert re.search(message, err), err
    assert "Traceback" not in err


def test_a_model_dir_that_is_a_file_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        status, _, err = call(capsys, path)
        assert status == 1
        assert re.match(r"error: --model_dir '.*' cannot be made: ", err)


def test_a_params_file_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / "params.yaml").mkdir()
    status, _, err = call(capsys, tmp_path)
    assert status == 1
    assert re.match(r"error: --model_dir '.*' cannot be written to: ", err)


def test_a_checkpoint_that_does_not_fit_is_told(tmp_path, capsys):
    assert call(capsys, tmp_path)[0] == 0
    status, _, err = call(capsys, tmp_path, overrides=["task.hidden=4"])
    assert status == 1
    assert "does not fit the model and the optimizer" in err
    assert "missing from the checkpoint" in err


def test_a_pattern_that_matches_nothing_is_told(tmp_path, capsys):
    file = tmp_path / "adamw.yaml"
    file.write_text(
        "trainer: {optimizer_config: {optimizer: {type: adamw, adamw: "
        "{exclude_from_weight_decay: [no_such_thing]}}}}"
    )
    status, _, err = call(capsys, tmp_path / "run", files=[file])
    assert status == 1
    assert re.search(r"error: trainer.optimizer_config: .*no_such_thing", err)


def test_an_interruption_is_told(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert binary._reporting(interrupted) == 130
    assert "goes on from the last checkpoint" in capsys.readouterr().err


def test_an_error_of_the_programmer_keeps_its_traceback():
    def broken():
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        binary._reporting(broken)


def test_doubts_are_told_in_one_line_each(capsys):
    def doubtful():
        for _ in range(2):
            warn(Problem("unselected", "optimizer.sgd", "is set, but not selected"))

    assert binary._reporting(doubtful) == 0
    line = "warning: optimizer.sgd: is set, but not selected\n"
    assert capsys.readouterr().err == 2 * line
    with pytest.raises(ConfigWarning):  # The filters of before are in force again.
        doubtful()


def test_a_doubt_is_told_once_in_a_run(tmp_path, capsys):
    overrides = ["trainer.optimizer_config.optimizer.adam.beta_1=0.8"]
    status, _, err = call(capsys, tmp_path, overrides=overrides)
    assert status == 0
    assert err.count("warning: ") == 1
    assert "optimizer.adam: is set, but `type` selects 'sgd'" in err


def test_an_unexpected_argument_is_told():
    flags = types.SimpleNamespace(model_dir="x")
    with pytest.raises(TrainingError, match="unexpected argument 'train_steps=3'"):
        binary._run_flags(["binary", "train_steps=3"], flags)


def test_evaluation_of_a_finished_run(tmp_path, capsys):
    assert call(capsys, tmp_path, mode="train")[0] == 0
    before = (tmp_path / "params.yaml").read_text()
    lines = {}
    for mode in ("eval", "continuous_eval"):
        status, out, err = call(capsys, tmp_path, mode=mode, overrides=["runtime.seed=9"])
        assert status == 0, err
        assert f"evaluating {tmp_path / 'ckpt-12'}" in out
        (lines[mode],) = re.findall(r"validation at step 12  .*", out)
    assert lines["eval"] == lines["continuous_eval"]
    assert (tmp_path / "params.yaml").read_text() == before


def test_continuous_evaluation_stops_when_no_checkpoint_comes(tmp_path, capsys):
    trainer(tmp_path, "trainer.train_steps=6").train()
    status, out, _ = call(
        capsys,
        tmp_path,
        mode="continuous_eval",
        overrides=["trainer.continuous_eval_timeout=0"],
    )
    assert status == 0
    assert "validation at step 6" in out
    assert sorted(read_summaries(tmp_path / "validation")["loss"]) == [6]


def test_mistakes_are_told_before_tensorflow_is_imported():
    code = (
        "import sys; import tests.training.tiny; from optimization import ConfigError\n"
        "from optimization.training.binary import resolve_flags\n"
        "try: resolve_flags('tiny', (), ['trainer.train_stepps=1'])\n"
        "except ConfigError: print({'tensorflow', 'keras', 'jax', 'torch'} & {*sys.modules})"
    )
    status, out, err = run(["-c", code])
    assert (status, out) == (0, "set()\n"), err


@pytest.mark.parametrize("arguments", [["--mode=fly"], ["--modle_dir=x"]])
def test_a_wrong_flag_is_told(arguments):
    status, _, err = run_binary("--experiment=tiny", *arguments)
    assert status != 0
    assert "FATAL Flags parsing error" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_command_line_from_end_to_end(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("trainer: {train_steps: 8}\n")
    command = [
        "--experiment=tiny",
        f"--config_file={file}",
        "--params_override=trainer.summary_interval=2,trainer.max_to_keep=1",
        "--params_override=task.hidden=2",
        "--mode=train_and_eval",
        f"--model_dir={tmp_path / 'run'}",
    ]
    status, out, err = run_binary(*command)
    assert status == 0, err
    assert err == ""
    assert re.findall(r"^step (\d+)/8 ", out, re.MULTILINE) == ["2", "4", "6", "8"]
    assert "validation at step 8" in out
    assert re.search(rf"^  configuration +{tmp_path / 'run/params.yaml'}$", out, re.MULTILINE)
    # The same command again, with more steps, goes on.
    status, out, err = run_binary(*command, "--params_override=trainer.train_steps=10")
    assert status == 0, err
    assert out.startswith(f"resumed at step 8 from {tmp_path / 'run/ckpt-8'}\n")


@pytest.mark.slow
def test_a_run_stopped_and_resumed_in_other_processes_is_the_same_bit_for_bit(tmp_path):
    settings = ["task.hidden=6,task.dropout=0.4", "runtime.seed=5"]
    trainer(tmp_path / "whole", *settings).train()
    for steps in (5, 12):
        status, _, err = run_binary(
            "--experiment=tiny",
            *(f"--params_override={setting}" for setting in settings),
            f"--params_override=trainer.train_steps={steps}",
            "--mode=train",
            f"--model_dir={tmp_path / 'parts'}",
        )
        assert status == 0, err
    assert_same_bits(stored(tmp_path / "parts/ckpt-12"), stored(tmp_path / "whole/ckpt-12"))


@pytest.mark.slow
def test_the_traceback_on_demand(tmp_path):
    command = ["--experiment=tiny", "--mode=eval", f"--model_dir={tmp_path}"]
    status, _, err = run_binary(*command)
    assert status == 1
    assert err == f"error: there is no checkpoint in '{tmp_path}' to evaluate\n"
    status, _, err = run_binary(*command, "--verbosity=1")
    assert status == 1
    assert "Traceback" in err
