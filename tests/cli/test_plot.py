import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optimization import LR_CLS, OptimizerFactory, extras
from optimization.cli.app import main
from optimization.configs.optimization_config import load_optimization_config

GOOD = """\
optimizer: {type: adamw, adamw: {weight_decay_rate: 0.05}}
learning_rate: {type: cosine, cosine: {initial_learning_rate: 0.1, decay_steps: 1000}}
warmup: {type: linear, linear: {warmup_steps: 10}}
"""
RELATIVE = GOOD.replace(", decay_steps: 1000", "")
EXPERIMENT = "trainer:\n  train_steps: 500\n  optimizer_config:\n" + "".join(
    f"    {line}\n" for line in RELATIVE.splitlines()
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return write


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_the_terminal(write, capsys, monkeypatch):
    pytest.importorskip("plotille")
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["plot", write("good.yaml", GOOD)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("learning rate\n")
    assert "good.yaml: 0 at step 0, 0.09998 at step 10, 0 at step" in out.replace("\n    ", " ")
    assert "warmup ends at step 10; decay ends at step 1,000" in out.replace("\n    ", " ")
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 60


@pytest.mark.parametrize("ending", ["svg", "html", "csv"])
def test_pictures_without_any_plotting_library(write, capsys, monkeypatch, ending):
    for name in ("matplotlib", "plotille"):
        monkeypatch.setitem(sys.modules, name, None)
    one, two = write("one.yaml", GOOD), write("two.yaml", GOOD.replace("0.1", "0.2"))
    assert main(["plot", one, two, "-o", f"x.{ending}"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(f"written: x.{ending}\n")
    assert err == ""
    text = Path(f"x.{ending}").read_text()
    assert "one.yaml" in text
    assert "two.yaml" in text


def test_csv_has_what_the_factory_computes(write):
    path = write("good.yaml", GOOD)
    assert main(["plot", path, "--range", "5:20", "-o", "x.csv"]) == 0
    header, *found = rows("x.csv")
    assert header == ["step", "good.yaml"]
    assert [int(step) for step, _ in found] == list(range(5, 21))
    factory = OptimizerFactory(load_optimization_config(path))
    expected = factory.learning_rate_curve(range(5, 21))
    assert [float(value) for _, value in found] == pytest.approx(list(expected), rel=1e-14)


def test_png(write):
    pytest.importorskip("matplotlib")
    assert main(["plot", write("good.yaml", GOOD), "-o", "x.png"]) == 0
    assert Path("x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_library_that_is_missing_is_told(write, capsys, monkeypatch):
    path = write("good.yaml", GOOD)
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", path, "-o", "x.png"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(
        r"Matplotlib is not installed, and this needs it. The extra `plot` brings it: .*; "
        r"`-o x.html`, `.svg` and `.csv` work without\n$",
        err,
    )
    assert not os.path.exists("x.png")


def test_without_plotille_the_terminal_has_a_table(write, capsys, monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "plotille", None)
    assert main(["plot", write("good.yaml", GOOD)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"^ +10  0.09998$", out, re.MULTILINE)
    assert "warmup ends at step 10" in out
    assert "\nNo drawing: plotille is not installed, and this needs it. The extra `plot`" in out


def test_the_length_of_the_training(write, capsys):
    path = write("relative.yaml", RELATIVE)
    assert main(["plot", path, "-o", "x.csv"]) == 1
    message = "relative.yaml:2: learning_rate.cosine.decay_steps: 'remaining' takes `train_steps`"
    message += ", which is not known: give `--train-steps N`, or write a number"
    assert message in capsys.readouterr().err
    assert main(["plot", path, "--train-steps", "300", "-o", "x.csv"]) == 0
    assert "training ends at step 300" in capsys.readouterr().out
    assert rows("x.csv")[-1] == ["300", "0.0"]
    path = write("experiment.yaml", EXPERIMENT)
    assert main(["plot", path, "-o", "x.csv"]) == 0
    assert "training ends at step 500" in capsys.readouterr().out
    assert main(["plot", path, "--train-steps", "300", "-o", "x.csv"]) == 0
    out, err = capsys.readouterr()
    assert "training ends at step 500" in out
    assert err == "experiment.yaml: has `train_steps` 500, which counts\n"
    epochs = write("epochs.yaml", GOOD.replace("1000", "3 epochs"))
    assert main(["plot", epochs, "-o", "x.csv"]) == 1
    assert (
        "takes `steps_per_epoch`, which is not known: give `--steps-per-epoch N`"
        in capsys.readouterr().err
    )
    assert main(["plot", epochs, "--steps-per-epoch", "50", "-o", "x.csv"]) == 0
    assert "decay ends at step 150" in capsys.readouterr().out
    section = GOOD.replace("1000", "2 epochs").replace("\n", "\n    ")
    whole = write("whole.yaml", f"trainer:\n  train_steps: 900\n  optimizer_config:\n    {section}")
    assert main(["plot", whole, "--steps-per-epoch", "50", "-o", "x.csv"]) == 0
    assert "decay ends at step 100; training ends at step 900" in capsys.readouterr().out


def test_files_with_errors_are_told_and_the_others_drawn(write, capsys):
    good = write("good.yaml", GOOD)
    bad = write("bad.yaml", GOOD.replace("decay_steps", "decay_step"))
    assert main(["plot", bad, good, "missing.yaml", "-o", "x.csv"]) == 1
    out, err = capsys.readouterr()
    assert rows("x.csv")[0] == ["step", "good.yaml"]
    assert out.startswith("good.yaml: ")
    key = "learning_rate.cosine.decay_step: unknown key; did you mean 'decay_steps'?"
    assert f"bad.yaml:2: {key}\n" in err
    assert "missing.yaml: cannot be read: No such file or directory" in err
    assert main(["plot", bad, "-o", "y.csv"]) == 1
    assert not os.path.exists("y.csv")


GROUPS = GOOD + "param_groups: [{match: bias$, name: biases, learning_rate_multiplier: 2}]\n"


def test_groups_and_other_numbers(write, capsys):
    path = write("groups.yaml", GROUPS)
    assert main(["plot", path, "--group", "all", "-o", "x.csv"]) == 0
    header, *found = rows("x.csv")
    assert header == ["step", "default", "biases"]
    assert all(float(biases) == 2 * float(default) for _, default, biases in found)
    assert main(["plot", path, "--what", "weight_decay", "-o", "x.csv"]) == 0
    assert {value for _, value in rows("x.csv")[1:]} == {"0.05"}
    capsys.readouterr()
    assert main(["plot", path, "--group", "biase", "-o", "x.csv"]) == 1
    err = "groups.yaml:1: there is no group 'biase'; did you mean 'biases'?"
    assert err.partition(":1")[2] in capsys.readouterr().err
    assert main(["plot", path, "--what", "weight_decy", "-o", "x.csv"]) == 1
    assert "there is no number 'weight_decy' that may change" in capsys.readouterr().err


def test_names_tell_files_apart(write, capsys):
    paths = [write(name, GOOD) for name in ("a/x.yaml", "b/x.yaml", "c/y.yaml")]
    assert main(["plot", *paths, "-o", "x.csv"]) == 0
    assert rows("x.csv")[0] == ["step", "a/x.yaml", "b/x.yaml", "y.yaml"]
    assert main(["plot", "**/*.yaml", "-o", "x.csv"]) == 0
    assert len(rows("x.csv")[0]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.jpg"], "a picture's file ends with .png, .svg, .html, .csv; got '.jpg'"),
        (["-o", "x"], "a picture's file ends with .png, .svg, .html, .csv; got none"),
        (["--range", "10"], "expected FROM:TO, such as 0:1000, :1000 or 500:, got '10'"),
        (["--range", "1:b"], "expected FROM:TO"),
        (["--range", "20:10"], "must go from a step >= 0 to a later one, got '20:10'"),
        (["--range", "-5:10"], "must go from a step >= 0"),
        (["--train-steps", "0"], "'--train-steps': "),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_drawn(write, capsys, arguments, message):
    files = [write("good.yaml", GOOD)] if arguments else []
    assert main(["plot", *files, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(write):
    pytest.importorskip("plotille")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        words = [sys.executable, "-m", "optimization", "plot", write("good.yaml", GOOD)]
        ended = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == ""


def test_what_is_outside_of_the_range_and_what_cannot_be_written(write, capsys):
    path = write("good.yaml", GOOD)
    assert main(["plot", path, "--range", "5000:", "-o", "x.csv"]) == 1
    assert "from step 5,000 on: the end is at 1,050" in capsys.readouterr().err
    assert main(["plot", path, "-o", "no/such/x.csv"]) == 2
    assert "no/such/x.csv cannot be written: No such file" in capsys.readouterr().err


def test_log(write, capsys):
    assert main(["plot", write("good.yaml", GOOD), "--log", "-o", "x.svg"]) == 0
    assert "logarithmic" in Path("x.svg").read_text()
    assert "values of 0 are left out" in capsys.readouterr().out


def test_over_an_experiment(write, tmp_path, monkeypatch, capsys):
    from optimization.training import registries

    monkeypatch.setattr(registries, "_EXPERIMENTS", {})
    monkeypatch.syspath_prepend(tmp_path)
    write(
        "experiment_of_plot.py",
        "from optimization import ExperimentConfig\n"
        "from optimization.training import register_experiment\n"
        "@register_experiment('of_plot')\n"
        "def of_plot():\n"
        "    sgd = {'type': 'sgd'}\n"
        "    rate = {'type': 'cosine', 'cosine': {'initial_learning_rate': 0.1}}\n"
        "    config = {'optimizer': sgd, 'learning_rate': rate}\n"
        "    return ExperimentConfig(trainer={'train_steps': 100, 'optimizer_config': config})\n",
    )
    path = write("part.yaml", "trainer: {train_steps: 200}\n")
    arguments = ["--import", "experiment_of_plot", "--experiment", "of_plot"]
    assert main(["plot", path, *arguments, "-o", "x.csv"]) == 0
    assert "training ends at step 200" in capsys.readouterr().out
    write("none.yaml", "trainer: {optimizer_config: {optimizer: {type: sgd}}}\n")
    assert main(["plot", "none.yaml", "-o", "x.csv"]) == 1
    assert "learning_rate.type: is not set" in capsys.readouterr().err


def test_a_formula_of_ones_own(write, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(LR_CLS, "_entries", dict(LR_CLS._entries))
    write(
        "formula_of_plot.py",
        "import optimization\n"
        "@optimization.register_learning_rate('of_plot')\n"
        "def of_plot(step, *, peak: float, xp):\n"
        "    if xp.max(step) > 150: raise OverflowError('too far')\n"
        "    return peak + 0 * step\n",
    )
    path = write("own.yaml", GOOD.replace("cosine: {initial_learning_rate: 0.1, decay_steps: 1000}",
                                          "of_plot: {peak: 2.0}").replace("cosine", "of_plot"))  # fmt: skip  # noqa: E501
    arguments = ["plot", path, "--import", "formula_of_plot", "-o", "x.csv"]
    assert main([*arguments, "--train-steps", "100"]) == 0
    assert rows("x.csv")[-1] == ["100", "2.0"]
    capsys.readouterr()
    assert main([*arguments, "--train-steps", "300"]) == 1
    assert "its formula fails: OverflowError: too far" in capsys.readouterr().err


def test_nothing_heavy_is_imported(write):
    path = write("good.yaml", GOOD)
    code = (
        "import sys\nfrom optimization.cli.app import main\n"
        f"assert main(['plot', {path!r}, '-o', 'x.html']) == 0\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'jax', 'matplotlib', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.stderr == ""
    assert result.stdout.endswith("[]\n")
