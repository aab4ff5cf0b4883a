import json
import os
import subprocess
import sys
import textwrap

import pytest

from optimization import LR_CLS
from optimization.cli.app import main
from optimization.training import registries

GOOD = """\
optimizer: {type: sgd, sgd: {momentum: 0.9}}
learning_rate: {type: cosine, cosine: {initial_learning_rate: 0.1, decay_steps: 1000}}
warmup: {type: linear, linear: {warmup_steps: 10}}
"""
DOUBTFUL = GOOD.replace("warmup_steps: 10", "warmup_steps: 10, warmup_learning_rate: 0.2")


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_fine_files_exit_0(write, capsys):
    path = write("good.yaml", GOOD)
    assert main(["validate", path]) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: fine (optimizer sgd, learning_rate cosine, warmup linear)\n"
    assert err == ""


def test_every_error_of_every_file_is_printed(write, capsys):
    good = write("good.yaml", GOOD)
    bad = write("bad.yaml", GOOD.replace("momentum: 0.9", "momentum: 2, nestrov: true"))
    worse = write("worse.yaml", "a: 1\na: 2\n")
    empty = write("empty.yaml", "")
    assert main(["validate", bad, good, worse, empty, "missing.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}: fine")
    assert err.splitlines()[:2] == [
        f"{bad}:1: optimizer.sgd.momentum: must be < 1, got 2",
        f"{bad}:1: optimizer.sgd.nestrov: unknown key; did you mean 'nesterov'?",
    ]
    assert f"{worse}:2: duplicate key 'a', first on line 1, again on line 2" in err
    assert "missing.yaml: cannot be read: No such file or directory" in err
    assert f"{empty}: is empty: it sets nothing" in err


def test_errors_come_in_the_order_of_lines(write, capsys):
    text = GOOD.replace("momentum: 0.9", "momentum: 2") + "ema: {}\nema: {}\n"
    head = "trainer:\n  train_steps: many\n  optimizer_config:\n"
    bad = write("bad.yaml", head + textwrap.indent(text, "    "))
    assert main(["validate", bad]) == 1
    lines = [int(line.split(":")[1]) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 3
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trainin.yaml", "No such file or directory; did you mean 'training.yaml'?"),
        ("folder", "Is a directory; write 'folder/**/*.yaml' for the files in it"),
        ("bert*.yaml", "no file has a name of this pattern"),
        ("no/training.yaml", "No such file or directory"),
        ("resnet.yaml", "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_what_may_be_meant(
    write, tmp_path, monkeypatch, capsys, name, message
):
    monkeypatch.chdir(tmp_path)
    write("training.yaml", GOOD)
    os.mkdir("folder")
    assert main(["validate", name]) == 1
    assert capsys.readouterr().err == f"{name}: cannot be read: {message}\n"


def test_an_experiment_file_may_leave_types_to_the_experiment(write, capsys):
    path = write(
        "experiment.yaml",
        "task: {x: 1}\ntrainer: {optimizer_config: {optimizer: {sgd: {momentum: 0.5}}}}\n",
    )
    assert main(["validate", path]) == 0
    assert (
        capsys.readouterr().err == "not shown: 2 of severity info; `--severity info` shows them\n"
    )
    assert main(["validate", "--severity", "info", path]) == 0
    _, err = capsys.readouterr()
    assert "info: trainer.optimizer_config.optimizer.type: is not set in this file" in err


def test_types_of_ones_own_are_imported(write, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(LR_CLS, "_entries", dict(LR_CLS._entries))
    write(
        "my_schedules.py",
        "import optimization\n"
        "@optimization.register_learning_rate('mine')\n"
        "def mine(step, *, peak: float, xp):\n    return peak + 0 * step\n",
    )
    path = write(
        "mine.yaml", "optimizer: {type: sgd}\nlearning_rate: {type: mine, mine: {peak: 1}}\n"
    )
    assert main(["validate", path]) == 1
    assert main(["validate", "--import", "my_schedules", path]) == 0
    assert "learning_rate mine" in capsys.readouterr().out
    assert main(["validate", "--import", "no_such_module", path]) == 2


EXPERIMENT = """\
from optimization import ExperimentConfig
from optimization.training import register_experiment

@register_experiment("of_main")
def of_main():
    sgd = {"type": "sgd", "sgd": {"momentum": 0.9}}
    rate = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}}
    return ExperimentConfig(
        task={"train_data": {"global_batch_size": 8}},
        trainer={"train_steps": 10, "optimizer_config": {"optimizer": sgd, "learning_rate": rate}},
    )

@register_experiment("of_main_that_fails")
def of_main_that_fails():
    raise KeyError("x")
"""


@pytest.fixture
def experiment(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registries, "_EXPERIMENTS", {})
    sys.modules.pop("experiment_of_main", None)
    write("experiment_of_main.py", EXPERIMENT)
    return ["validate", "--import", "experiment_of_main", "--experiment"]


def test_over_an_experiment_the_whole_file_is_read(experiment, write, capsys):
    path = write(
        "part.yaml",
        "task: {train_data: {shufle: true}}\n"
        "trainer:\n  train_stepz: 3\n  optimizer_config: {optimizer: {sgd: {momentum: 2}}}\n"
        "runtime: {tpu: x}\noptimizer: {type: sgd}\n",
    )
    assert main([*experiment, "of_main", path]) == 1
    assert [line.split(": ", 2)[:2] for line in capsys.readouterr().err.splitlines()] == [
        [f"{path}:1", "task.train_data.shufle"],
        [f"{path}:3", "trainer.train_stepz"],
        [f"{path}:4", "trainer.optimizer_config.optimizer.sgd.momentum"],
        [f"{path}:5", "runtime.tpu"],
        [f"{path}:6", "optimizer"],
    ]


def test_what_an_experiment_sets_the_file_may_leave_out(experiment, write, capsys):
    path = write("part.yaml", "trainer: {optimizer_config: {optimizer: {sgd: {momentum: 0.5}}}}\n")
    assert main([*experiment, "of_main", path]) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: 1 warning (optimizer sgd, learning_rate cosine)\n"
    assert err == (
        f"{path}: warning: task.validation_data.global_batch_size: must be > 0 in the mode "
        "'train_and_eval', got 0 [mode]\n"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("of_mian", "unknown experiment 'of_mian'; did you mean 'of_main'?"),
        ("of_main_that_fails", "the experiment 'of_main_that_fails' fails: KeyError: 'x' ("),
    ],
)
def test_an_experiment_that_cannot_be_had_is_a_usage_error(name, message, experiment, capsys):
    assert main([*experiment, name, "x.yaml"]) == 2
    assert message in capsys.readouterr().err


def test_trainer_and_runtime_are_checked_without_an_experiment(write, capsys):
    path = write(
        "part.yaml",
        "task: {filterz: 1}\ntrainer: {train_stepz: 3, num_gpus: 3, optimizer_config: {}}\n"
        "runtime: {enable_xla: 'yes'}\n",
    )
    assert main(["validate", path]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:2: trainer.train_stepz: unknown key; did you mean 'train_steps'?",
        f"{path}:3: runtime.enable_xla: expected true or false, got 'yes' (text)",
    ]


def test_values_without_a_type_are_an_error_in_a_section(write, capsys):
    untyped = write("untyped.yaml", GOOD.replace("warmup: {type: linear, ", "warmup: {"))
    groups = "param_groups: [{match: x, optimizer: {sgd: {momentum: 0.5}}}]\n"
    group = write("group.yaml", GOOD + groups)
    schedules = "schedules: {momentum: {constant: {learning_rate: 0.5}}}\n"
    schedule = write("schedule.yaml", GOOD + schedules)
    assert main(["validate", untyped, group, schedule]) == 1
    required = "a type is required for"
    assert capsys.readouterr().err.splitlines() == [
        f"{untyped}:3: warmup.type: {required} `linear.warmup_steps`, none was given; "
        "write `type: linear`",
        f"{group}:4: param_groups[0].optimizer.type: {required} `sgd.momentum`, none was given; "
        "write `type: sgd`",
        f"{schedule}:4: schedules.momentum.type: {required} `constant.learning_rate`, none was "
        "given; write `type: constant`",
    ]


def test_a_type_that_is_null_is_a_type_that_is_given(write, capsys):
    path = write("none.yaml", GOOD.replace("type: linear", "type: null"))
    assert main(["validate", path]) == 0
    message = "warning: warmup.linear: is set, but `type` selects None [unselected]"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "places"),
    [
        ("warmup: {linear: {warmup_steps: 1500}}", ["warmup.type", "learning_rate.type"]),
        (
            "learning_rate: {type: stepwise, stepwise: {boundaries: [50000, 65000]}}",
            ["learning_rate.stepwise.values"],
        ),
        ("learning_rate: {type: cosine}", ["learning_rate.cosine.initial_learning_rate"]),
    ],
)
def test_what_an_experiment_file_leaves_to_the_experiment_is_a_note(write, capsys, section, places):
    path = write(
        "experiment.yaml", f"trainer: {{train_steps: 70000, optimizer_config: {{{section}}}}}\n"
    )
    assert main(["validate", "--severity", "info", path]) == 0
    notes = capsys.readouterr().err.splitlines()
    wanted = "is not set in this file; the registered experiment must set it [incomplete]"
    for place in ["optimizer.type", *places]:
        assert any(f": trainer.optimizer_config.{place}: {wanted}" in note for note in notes)
    assert len(notes) == 1 + len(places)
    plain = write("plain.yaml", section + "\n")
    assert main(["validate", plain]) == 1


def test_an_experiment_file_is_checked_against_its_train_steps(write, capsys):
    text = (
        "trainer:\n  train_steps: {}\n  optimizer_config:\n"
        "    learning_rate: {{type: linear, linear: {{initial_learning_rate: 1, decay_steps: 900}}"
        "}}\n    warmup: {{linear: {{warmup_steps: {}}}}}\n"
    )
    assert main(["validate", write("early.yaml", text.format(1000, 10))]) == 0
    assert "decay_steps: the decay ends at step 900, `train_steps`" in capsys.readouterr().err
    assert main(["validate", write("fits.yaml", text.format(900, 10))]) == 0
    assert "decay" not in capsys.readouterr().err
    # The type of the warmup is the experiment's, as more may be; its length is known.
    assert main(["validate", write("short.yaml", text.format(900, 900))]) == 0
    assert "warmup_steps: the learning rate is 0 in every step" in capsys.readouterr().err
    typed = text.format(900, 900).replace("warmup: {", "warmup: {type: linear, ")
    assert main(["validate", write("typed.yaml", typed)]) == 1


def test_usage_errors_are_told_by_the_parser(capsys):
    for arguments in ([], ["validate"], ["validat", "x"]):
        assert main(arguments) == 2


def test_as_a_program_without_traceback_or_tensorflow(write):
    path = write("bad.yaml", GOOD.replace("0.9", "'0.9'"))
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['optimization', 'validate', {path!r}]\n"
        "try:\n    runpy.run_module('optimization', run_name='__main__')\n"
        "except SystemExit as stop:\n    print('exit', stop.code)\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'jax', 'optax'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "exit 1\n[]\n"
    assert "Traceback" not in result.stderr
    assert "expected a number, got '0.9'" in result.stderr


def test_the_lint_needs_neither_a_framework_nor_numpy(write):
    path = write("doubtful.yaml", "trainer:\n  train_steps: 1000\n  optimizer_config:\n")
    with open(path, "a") as file:
        file.writelines(f"    {line}\n" for line in DOUBTFUL.splitlines())
    code = (
        "import sys\nfrom optimization.cli.app import main\n"
        f"status = main(['validate', '--severity', 'info', {path!r}])\n"
        "heavy = {'numpy', 'tensorflow', 'keras', 'torch', 'jax', 'optax'}\n"
        "print(status, sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "[lowest-above-peak]" in result.stderr
    assert result.stdout.splitlines()[-1] == "0 []"


def test_libraries_that_write_while_they_load_are_not_heard(experiment, write, tmp_path):
    write(
        "noisy_module.py",
        "import os, sys\nos.write(2, b'noise')\nprint('noise', file=sys.stderr)\n"
        "import experiment_of_main\n",
    )
    path = write("part.yaml", "trainer: {train_step: 3}\n")
    arguments = ["--import", "noisy_module", "--experiment", "of_main", path]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    result = subprocess.run(
        [sys.executable, "-m", "optimization", "validate", *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )
    message = "trainer.train_step: unknown key; did you mean 'train_steps'?"
    assert (result.returncode, result.stderr) == (1, f"{path}:1: {message}\n")


def test_strict_lets_warnings_fail(write, capsys):
    path = write("doubtful.yaml", DOUBTFUL)
    assert main(["validate", path]) == 0
    assert main(["validate", "--strict", path]) == 1
    out, err = capsys.readouterr()
    assert "warning: warmup.linear.warmup_learning_rate: is 0.2" in err
    assert f"{path}: 1 warning (optimizer sgd, learning_rate cosine, warmup linear)\n" in out
    assert main(["validate", "--strict", "--severity", "error", path]) == 1
    assert "not shown: 1 below error; `--severity warning` shows" in capsys.readouterr().err
    assert main(["validate", "--strict", write("good.yaml", GOOD)]) == 0


def test_infos_are_told_where_that_is_asked_for(write, capsys):
    decay = "optimizer: {type: sgd, sgd: {weight_decay: 0.1, momentum: 0.0}}\n"
    path = write("decay.yaml", decay + GOOD.partition("\n")[2])
    assert main(["validate", "--strict", path]) == 0
    assert capsys.readouterr().err.startswith("not shown: 1 of severity info;")
    assert main(["validate", "--strict", "--select", "decay-on-norms", path]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}:1: info: optimizer.sgd.weight_decay: ")
    assert line.endswith(" [decay-on-norms]")
    assert main(["validate", "--severity", "info", "--select", "equals-default", path]) == 0
    found = [line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert sorted(found) == ["[decay-on-norms]", "[equals-default]"]


def test_rules_that_there_are_not_cannot_be_selected(write, capsys):
    path = write("good.yaml", GOOD)
    assert main(["validate", "--select", "equal-default", path]) == 2
    message = "there is no rule 'equal-default'; did you mean 'equals-default'?"
    assert message in capsys.readouterr().err
    assert main(["validate", "--format", "yaml", path]) == 2
    assert main(["validate", "--severity", "fatal", path]) == 2


def test_the_lengths_of_the_experiment_count(experiment, write, capsys):
    path = write("part.yaml", "trainer: {summary_interval: 11}\n")
    assert main([*experiment, "of_main", path]) == 0
    err = capsys.readouterr().err
    assert f"{path}:1: warning: trainer.summary_interval: is 11, `train_steps` 10" in err
    path = write("batch.yaml", "task: {train_data: {global_batch_size: 16}}\n")
    assert main([*experiment, "of_main", path]) == 0
    assert "[batch-without-rate]" in capsys.readouterr().err


def test_hundreds_of_files_by_a_pattern(write, tmp_path, capsys):
    (tmp_path / "many" / "more").mkdir(parents=True)
    for number in range(100):
        write(f"many/{number}.yaml", GOOD)
        write(f"many/more/{number}.yaml", DOUBTFUL if number % 2 else GOOD.replace("0.9", "9"))
    assert main(["validate", "--format", "json", f"{tmp_path}/many/**/*.yaml"]) == 1
    found = [(f["code"], f["severity"]) for f in json.loads(capsys.readouterr().out)]
    assert found.count(("value", "error")) == 50
    assert found.count(("lowest-above-peak", "warning")) == 50
    assert len(found) == 100


def test_the_file_of_a_sweep_is_checked_as_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "trials: 3\nparameters: [{path: trainer.train_steps, int: [8, 32]}]\n"
    (tmp_path / "sweep.yaml").write_text(text)
    assert main(["validate", "sweep.yaml"]) == 0
    assert capsys.readouterr().out == "sweep.yaml: fine (a sweep)\n"
    (tmp_path / "sweep.yaml").write_text(text.replace("trials: 3", "trails: 3"))
    assert main(["validate", "sweep.yaml"]) == 1
    told = "sweep.yaml:1: trails: unknown key; did you mean 'trials'?\n"
    assert capsys.readouterr().err.startswith(told)
