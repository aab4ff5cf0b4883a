import json
import re

import pytest
from rich.console import Console

from optimization import ConfigError, ConfigWarning
from optimization.configs.errors import Problem, warn
from optimization.training import Trainer, TrainingError, binary, register_experiment
from optimization.training.binary import resolve_flags
from optimization.training.flags import FLAGS, RunFlags
from tests.training.tiny import (
    assert_same_bits,
    read_summaries,
    run,
    run_binary,
    stored,
    tiny_experiment,
    trainer,
)

pytestmark = pytest.mark.slow

register_experiment("tinier")(tiny_experiment)


def call(capsys, model_dir, experiment="tiny", files=(), overrides=(), mode="train", **others):
    """Runs the binary's body in this process; returns its exit status and what it said."""
    flags = RunFlags(
        experiment=experiment,
        config_file=[str(path) for path in files],
        params_override=list(overrides),
        mode=mode,
        model_dir=model_dir and str(model_dir),
        **others,
    )
    status = binary.reporting(lambda: binary.run_flags(flags))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def quiet_trainer(config, model_dir):
    return Trainer(config, model_dir, console=Console(quiet=True))


def test_layers_in_their_order(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("trainer: {train_steps: 20, max_to_keep: 2}\ntask: {hidden: 3}\n")
    second.write_text("trainer: {train_steps: 30}\n")
    schedule = "trainer.optimizer_config.learning_rate.cosine.decay_steps=40"
    overrides = [f"trainer.train_steps=40,trainer.summary_interval=7,{schedule}", "{task: {}}"]
    config = resolve_flags("tiny", [first, second], overrides)
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


def test_a_training_longer_than_its_decay_is_told(tmp_path):
    with pytest.warns(ConfigWarning, match="ends at step 12, `train_steps` is 20: the rate is 0"):
        config = resolve_flags("tiny", (), ["trainer.train_steps=20"])
    trainer = quiet_trainer(config, tmp_path)  # which does not tell it again: an error here
    assert trainer.optimizer_config.learning_rate.cosine.decay_steps == 12
    warmup = "trainer.optimizer_config.warmup.linear.warmup_steps=12"
    with pytest.raises(ConfigError, match="warmup_steps: the learning rate is 0 in every step of"):
        resolve_flags("tiny", (), [f"trainer.train_steps=20,{warmup}"])
    config.trainer.optimizer_config.warmup.linear.warmup_steps = 12
    with pytest.raises(ConfigError, match="warmup_steps: the learning rate is 0 in every step of"):
        quiet_trainer(config, tmp_path)


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
        assert re.match(r"error: --model_dir '.*' (is a file|cannot be made: )", err)


def test_a_params_file_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / "params.yaml").mkdir()
    status, _, err = call(capsys, tmp_path)
    assert status == 1
    assert re.match(r"error: --model_dir '.*' cannot be written to: ", err)


def test_a_checkpoint_that_does_not_fit_is_told(tmp_path, capsys):
    assert call(capsys, tmp_path)[0] == 0
    status, _, err = call(capsys, tmp_path, overrides=["task.hidden=4"])
    assert status == 1
    assert "  task.hidden: was 0, is 4\n" in err
    assert "missing from the checkpoint" not in err


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

    assert binary.reporting(interrupted) == 130
    assert "goes on from the last checkpoint" in capsys.readouterr().err


def test_a_missing_package_is_told_with_its_extra_alone(capsys):
    def run():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert binary.reporting(run) == 1
    assert capsys.readouterr().err.startswith("error: PyTorch is not installed, and this needs it")


def test_an_error_of_the_programmer_keeps_its_traceback():
    def broken():
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        binary.reporting(broken)


def test_doubts_are_told_in_one_line_each(capsys):
    def doubtful():
        for _ in range(2):
            warn(Problem("unselected", "optimizer.sgd", "is set, but not selected"))

    assert binary.reporting(doubtful) == 0
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
    with pytest.raises(TrainingError, match="unexpected argument 'train_steps=3'"):
        binary.parsed(["binary", "train_steps=3"])


# The highest loss is that of the first evaluation, at step 3.
BEST = (
    "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=loss",
    "trainer.validation_interval=3,trainer.checkpoint_interval=4",
)


def evaluated(capsys, directory, **kwargs):
    """Evaluates with no other flag than those given; returns what was, and how well."""
    status, out, err = call(capsys, directory, experiment=None, mode="eval", **kwargs)
    assert status == 0, err
    assert out.startswith(f"settings of {directory}/params.yaml")
    (line,) = re.findall(r"^  evaluated +(.*)$", out, re.MULTILINE)
    assert f"evaluating {line}\n" in out
    (values,) = re.findall(r"^(validation at step .*)$", out, re.MULTILINE)
    return line, values, out


def test_evaluation_needs_no_other_flag_and_takes_the_settings_of_the_run(tmp_path, capsys):
    momentum = "trainer.optimizer_config.optimizer.sgd.momentum=0.5"
    status, trained, _ = call(capsys, tmp_path, overrides=[*BEST, momentum], mode="train_and_eval")
    assert status == 0
    (last,) = re.findall(r"^validation at step 12  .*$", trained, re.MULTILINE)
    before = (tmp_path / "params.yaml").read_text()
    assert before.startswith("# The settings of this run from step 0 on.\nexperiment: tiny\n")
    line, values, out = evaluated(capsys, tmp_path)
    assert line == f"{tmp_path}/ckpt-12 (latest checkpoint, step 12)"
    assert values == last
    assert re.search(r"^  optimizer +sgd \(momentum 0.5\)$", out, re.MULTILINE)
    assert evaluated(capsys, tmp_path, checkpoint="latest")[:2] == (line, values)
    line, values, _ = evaluated(capsys, tmp_path, checkpoint="best")
    assert line == f"{tmp_path}/best/ckpt-3 (best weights, step 3)"
    assert f"{values}  (best)\n" in trained
    for path in ("ckpt-4", str(tmp_path / "ckpt-4"), str(tmp_path / "ckpt-4.index")):
        line, values, _ = evaluated(capsys, tmp_path, checkpoint=path)
        assert line == f"{tmp_path}/ckpt-4 (checkpoint, step 4)"
    # Flags go over the file, which stays as it is.
    _, _, out = evaluated(capsys, tmp_path, overrides=["trainer.validation_steps=1"])
    assert out.startswith(f"settings of {tmp_path}/params.yaml, changed by flags\n")
    assert values not in out
    assert (tmp_path / "params.yaml").read_text() == before


def test_evaluation_says_which_weights_of_an_average(tmp_path, capsys):
    average = "trainer.optimizer_config.ema.average_decay=0.9"
    assert call(capsys, tmp_path, overrides=[*BEST, average], mode="train_and_eval")[0] == 0
    line, values, _ = evaluated(capsys, tmp_path)
    assert line.endswith("(latest checkpoint, step 12, averaged weights)")
    info = json.loads((tmp_path / "best/info.json").read_text())
    line, values, _ = evaluated(capsys, tmp_path, checkpoint="best")
    assert line.endswith("(best weights, step 3, averaged weights)")
    assert f"loss {info['metrics']['loss']:.4g}" in values
    assert values.endswith("(averaged weights)")


def test_evaluation_of_a_run_that_may_not_be_written_to(tmp_path, capsys, monkeypatch):
    assert call(capsys, tmp_path, overrides=BEST)[0] == 0
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "loss" in evaluated(capsys, tmp_path)[1]
    assert not [path for path in tmp_path.iterdir() if path.name in ("validation", "best")]
    assert call(capsys, tmp_path)[0] == 0  # It has come to its end.
    status, _, err = call(capsys, tmp_path, overrides=("trainer.train_steps=24",))
    assert status == 1
    assert re.search(r"error: --model_dir '.*' cannot be written to: permission denied", err)


def test_continuous_evaluation_of_a_finished_run(tmp_path, capsys):
    assert call(capsys, tmp_path, mode="train")[0] == 0
    status, out, err = call(capsys, tmp_path, experiment=None, mode="continuous_eval")
    assert status == 0, err
    assert f"evaluating {tmp_path / 'ckpt-12'}" in out
    assert "validation at step 12" in out


def test_without_best_weights_none_are_told(tmp_path, capsys):
    status, out, _ = call(capsys, tmp_path, overrides=BEST, mode="train")
    assert status == 0
    assert "best weights" not in out
    status, _, err = call(capsys, tmp_path, experiment=None, mode="eval", checkpoint="best")
    assert status == 1
    assert f"error: --checkpoint=best: there are no best weights in '{tmp_path}/best'" in err


@pytest.mark.parametrize("steps", [12, 6])
def test_fewer_steps_than_are_done_are_told_and_not_recorded(tmp_path, capsys, steps):
    assert call(capsys, tmp_path)[0] == 0
    before = (tmp_path / "params.yaml").read_text()
    changed = [f"trainer.train_steps={steps},trainer.max_to_keep=2"]
    status, out, _ = call(capsys, tmp_path, overrides=changed)
    assert status == 0
    assert f"trained already: 12 steps are done, trainer.train_steps is {steps}; set it" in out
    assert "changed since: " in out
    assert "trainer.max_to_keep was 5, is 2" in out
    assert (tmp_path / "params.yaml").read_text() == before


def test_what_is_trained_is_told_before_it_is(tmp_path, capsys):
    decay = "trainer.optimizer_config.learning_rate.cosine.decay_steps=remaining"
    for steps, started in ((8, "8"), (12, "12, 8 of them done")):
        settings = f"trainer.train_steps={steps},{decay},trainer.resume=continue"
        _, out, _ = call(capsys, tmp_path, overrides=[settings])
        before, _, after = out.partition(f"/{steps}  loss")
        for fact in ("task", "model", "optimizer", "learning rate", "warmup", "devices"):
            assert re.search(rf"^  {fact}  ", before, re.MULTILINE), fact
            assert not re.search(rf"^  {fact}  ", after, re.MULTILINE), fact
        assert f", decay_steps {steps}," in before
        assert re.search(rf"^  steps +{started}$", before, re.MULTILINE)
        assert re.search(rf"^  steps +{steps} of {steps}$", after, re.MULTILINE)
    assert before.startswith(f"resumed at step 8 from {tmp_path}/ckpt-8\n")
    assert "decay_steps was 8 (remaining), is 12 (remaining); trainer.train_steps was 8" in before
    assert "trainer.resume=continue: the schedules are read at step 8, as before\n" in before


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


def test_mistakes_are_told_before_tensorflow_is_imported(tmp_path):
    """One process for all of them: none may load TensorFlow for the next."""
    (tmp_path / "file").write_text("")
    run_with = {
        "damaged": "trainer: [\n",
        "unnamed": "trainer: {train_steps: 3}\n",
        "gone": "experiment: tinny\n",
        "stepps": "experiment: tiny\ntrainer: {train_stepps: 3}\n",
        "run": "experiment: tiny\ntrainer: {optimizer_config: {optimizer: {type: adam}}}\n",
    }
    for name, text in run_with.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "params.yaml").write_text(text)
    for part in ("index", "data-00000-of-00001"):
        (tmp_path / "run" / f"ckpt-3.{part}").write_text("")
    cases = [
        ("eval nowhere", "'nowhere' does not exist: there is no params.yaml"),
        ("eval file", "--model_dir 'file' is a file, not a directory"),
        ("train run", "to go on with the run in 'run', give --config_file=run/params.yaml"),
        ("train file --experiment=tiny", "--model_dir 'file' is a file"),
        ("eval damaged", "damaged/params.yaml:2: not YAML"),
        ("eval unnamed", "--experiment is required, unnamed/params.yaml names none; registered"),
        ("eval gone", "gone/params.yaml:1: unknown experiment 'tinny'; did you mean 'tiny'?"),
        ("eval stepps", "stepps/params.yaml:2: trainer.train_stepps: unknown key"),
        ("eval unnamed --experiment=tiny", "there is no checkpoint in 'unnamed' to evaluate"),
        ("eval run --checkpoint=best", "the run keeps no best weights"),
        ("eval run --checkpoint=beast", "there is no checkpoint at 'beast'; did you mean 'best'?"),
        ("eval run --checkpoint=ckpt-4", "there is no checkpoint at 'ckpt-4'; 'run' holds ckpt-3"),
        ("eval run --checkpoint=", "--checkpoint must be best, latest or a path, got ''"),
        ("train run --experiment=tiny --checkpoint=best", "--checkpoint is for --mode=eval"),
        ("train run --experiment=tiny", "optimizer_config.optimizer.type: was adam, is sgd"),
        ("train run --experiment=tiny_too", "experiment: was tiny, is tiny_too"),
        ("eval run --experiment=tiny_too --config_file=no.yaml", "no.yaml: cannot be read"),
        (
            "train new --experiment=tiny --params_override=task.init_checkpoint=old/ckpt-1",
            "task.init_checkpoint: there is no checkpoint at 'old/ckpt-1'",
        ),
        ("train new --experiment=tiny --params_override=trainer.train_stepps=1", "train_stepps"),
    ]
    code = (
        "import os, sys\n"
        "from absl import flags\n"
        "from optimization.training import binary, register_experiment\n"
        "from tests.training.tiny import tiny_experiment\n"
        "register_experiment('tiny_too')(tiny_experiment)\n"
        "binary.define_flags()\n"
        f"os.chdir({str(tmp_path)!r})\n"
        f"for arguments in {[arguments for arguments, _ in cases]!r}:\n"
        "    mode, directory, *others = arguments.split()\n"
        "    flags.FLAGS.unparse_flags()\n"
        "    for name in ('experiment', 'config_file', 'params_override', 'checkpoint'):\n"
        "        flags.FLAGS[name].unparse()\n"
        "    argv = flags.FLAGS(['b', f'--mode={mode}', f'--model_dir={directory}', *others])\n"
        "    status = binary.reporting(lambda: binary.run_flags(binary.parsed(argv)))\n"
        "    loaded = {'tensorflow', 'keras', 'jax', 'torch'} & {*sys.modules}\n"
        "    print('end of', repr(arguments), status, *loaded, file=sys.stderr, flush=True)\n"
    )
    status, _, err = run(["-c", code])
    assert status == 0, err
    said = re.split(r"^end of .*\n", err, flags=re.MULTILINE)
    for (arguments, message), text in zip(cases, said, strict=False):
        assert message in text, f"{arguments}: {text}"
        assert f"end of {arguments!r} 1\n" in err


def test_a_file_names_its_experiment_and_a_flag_wins_over_it(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("experiment: tiny\ntask: {hidden: 3}\n")
    assert resolve_flags(None, [file]).task.hidden == 3
    with pytest.warns(ConfigWarning, match=f"{file}:1: experiment: .* 'tiny', not of 'tinier'"):
        config = resolve_flags("tinier", [file])
    assert config.experiment == "tinier"
    file.write_text("experiment: tiny\ntask: {hiden: 3}\n")
    with pytest.raises(ConfigError, match="not of 'tinier'(?s:.*)task.hiden: unknown key"):
        resolve_flags("tinier", [file])


@pytest.mark.parametrize("arguments", [["--mode=fly"], ["--modle_dir=x"]])
def test_a_wrong_flag_is_told(arguments):
    status, _, err = run_binary("--experiment=tiny", *arguments)
    assert status != 0
    assert "FATAL Flags parsing error" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_command_line_from_end_to_end(tmp_path):
    """What stops and goes on in another process is bit for bit what trains at once in this one."""
    file = tmp_path / "settings.yaml"
    file.write_text("trainer: {train_steps: 8, summary_interval: 2}\n")
    overrides = ["task.hidden=6,task.dropout=0.4", "trainer.max_to_keep=1,runtime.seed=5"]
    command = [
        "--experiment=tiny",
        f"--config_file={file}",
        *(f"--params_override={override}" for override in overrides),
        "--mode=train_and_eval",
        f"--model_dir={tmp_path / 'run'}",
    ]
    status, out, err = run_binary(*command)
    assert status == 0, err
    assert re.fullmatch(r"warning: trainer\..*decay_steps: the decay ends at step 12.*\n", err)
    assert re.findall(r"^step (\d+)/8 ", out, re.MULTILINE) == ["2", "4", "6", "8"]
    assert "validation at step 8" in out
    assert re.search(rf"^  configuration +{tmp_path / 'run/params.yaml'}$", out, re.MULTILINE)
    # The same command again, with more steps, goes on.
    status, out, err = run_binary(*command, "--params_override=trainer.train_steps=12")
    assert status == 0, err
    assert err == ""
    assert out.startswith(f"resumed at step 8 from {tmp_path / 'run/ckpt-8'}\n")
    trainer(tmp_path / "whole", *overrides).train(evaluate=True)
    assert_same_bits(stored(tmp_path / "run/ckpt-12"), stored(tmp_path / "whole/ckpt-12"))


@pytest.mark.slow
def test_the_traceback_on_demand(tmp_path):
    command = ["--experiment=tiny", "--mode=eval", f"--model_dir={tmp_path}"]
    status, _, err = run_binary(*command)
    assert status == 1
    assert err == f"error: there is no checkpoint in '{tmp_path}' to evaluate\n"
    status, _, err = run_binary(*command, "--verbosity=1")
    assert status == 1
    assert "Traceback" in err


def test_help_lists_the_flags_of_the_binary_and_its_experiments():
    binary_of_ones_own = (
        "from absl import flags\n"
        "from optimization import training\n"
        "import tests.training.tiny\n"
        "flags.DEFINE_integer('machines', 3, 'How many.')\n"
        "training.main()\n"
    )
    status, out, err = run(["-c", binary_of_ones_own, "--help"], {"COLUMNS": "80"})
    assert (status, err) == (0, "")
    for field in FLAGS:
        assert f"\n  --{field.name}" in out
    assert "\n  --machines=VALUE\n      How many.\n" in out
    assert "\nexperiments:\n  tiny  Linear regression in twelve steps.\n" in out
    assert max(map(len, out.splitlines())) <= 80


def test_help_without_experiments_says_what_to_do():
    code = "from optimization import training; training.main()"
    assert "none is registered: import the modules" in run(["-c", code, "-h"])[1]
