import re
import subprocess
import sys
from pathlib import Path

import pytest

from optimization import LR_CLS
from optimization.__main__ import main

README = Path(__file__).parent.parent / "README.md"
GOOD = """\
optimizer: {type: sgd, sgd: {momentum: 0.9}}
learning_rate: {type: cosine, cosine: {initial_learning_rate: 0.1, decay_steps: 1000}}
warmup: {type: linear, linear: {warmup_steps: 10}}
"""


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


def test_readme_shows_what_is_printed_for_three_mistakes(write, tmp_path, monkeypatch, capsys):
    shown = re.search(r"validate bert.yaml\n(.*?)```", README.read_text(), re.DOTALL)[1]
    write(
        "bert.yaml",
        "optimizer:\n  type: adamw\n  adamw:\n    weight_decay_rat: 0.01\n"
        "learning_rate:\n  type: polynomial\n  polynomial:\n"
        "    decay_steps: 0\n    initial_learning_rate: 1e-4\nwarmup: {type: liner}\n",
    )
    monkeypatch.chdir(tmp_path)
    assert main(["validate", "bert.yaml"]) == 1
    assert capsys.readouterr().err == shown


def test_every_error_of_every_file_is_printed(write, capsys):
    good = write("good.yaml", GOOD)
    bad = write("bad.yaml", GOOD.replace("momentum: 0.9", "momentum: 2, nestrov: true"))
    worse = write("worse.yaml", "a: 1\na: 2\n")
    empty = write("empty.yaml", "")
    assert main(["validate", bad, good, worse, empty, "missing.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}: fine")
    assert err.splitlines()[:3] == [
        f"{bad}:1: optimizer.sgd.momentum: must be < 1, got 2",
        f"{bad}:1: optimizer.sgd.nestrov: unknown key; did you mean 'nesterov'?",
        f"{worse}:2: duplicate key 'a', first on line 1, again on line 2",
    ]
    assert "missing.yaml: cannot be read: No such file or directory" in err
    assert f"{empty}: optimizer.type: a type is required" in err


def test_an_experiment_file_may_leave_types_to_the_experiment(write, capsys):
    path = write(
        "experiment.yaml",
        "task: {x: 1}\ntrainer: {optimizer_config: {optimizer: {sgd: {momentum: 0.5}}}}\n",
    )
    assert main(["validate", path]) == 0
    _, err = capsys.readouterr()
    assert "trainer.optimizer_config.optimizer.type: is not set in this file" in err


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
    with pytest.raises(SystemExit) as stop:
        main(["validate", "--import", "no_such_module", path])
    assert stop.value.code == 2


def test_a_selected_branch_without_its_required_values_is_wrong(write, capsys):
    path = write("partial.yaml", "trainer: {optimizer_config: {learning_rate: {type: cosine}}}\n")
    assert main(["validate", path]) == 1
    _, err = capsys.readouterr()
    place = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate"
    assert f"{place}: a value is required" in err


def test_usage_errors_are_told_by_the_parser(capsys):
    for arguments in ([], ["validate"], ["validat", "x"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_as_a_program_without_traceback_or_tensorflow(write):
    path = write("bad.yaml", GOOD.replace("0.9", "'0.9'"))
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['optimization', 'validate', {path!r}]\n"
        "try:\n    runpy.run_module('optimization', run_name='__main__')\n"
        "except SystemExit as stop:\n    print('exit', stop.code)\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "exit 1\n[]\n"
    assert "Traceback" not in result.stderr
    assert "expected a number, got '0.9'" in result.stderr
