import json
import subprocess
import sys

import pytest

from optimization.cli.app import main
from tests.training.tiny import run

CONFIG = """\
optimizer: {type: adamw, adamw: {weight_decay_rate: 0.1, exclude_from_weight_decay: [bias]}}
learning_rate: {type: constant, constant: {learning_rate: 0.5}}
"""
TABLE = """\
variable    group    optimizer  multiplier  learning rate           parameters
1 variable  default  adamw      1           0.5            decayed  24
1 variable  default  adamw      1           0.5                     3
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "names.txt").write_text("head/kernel [8, 3]\nhead/bias [3]\n")
    return tmp_path


def test_a_list_of_names(files, capsys):
    assert main(["params", "config.yaml", "--names", "names.txt"]) == 0
    assert capsys.readouterr().out == TABLE


def test_names_from_standard_input(files, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("names.txt"))  # noqa: SIM115
    assert main(["params", "config.yaml", "--names", "-"]) == 0
    assert capsys.readouterr().out == TABLE


def test_the_length_of_the_training_tells_the_rates(files, capsys):
    rate = "{type: linear, linear: {initial_learning_rate: 0.5}}"
    section = CONFIG.replace("{type: constant, constant: {learning_rate: 0.5}}", rate)
    (files / "config.yaml").write_text(section)
    words = ["params", "config.yaml", "--names", "names.txt"]
    assert main(words) == 0
    assert "1           ?              decayed" in capsys.readouterr().out
    assert main([*words, "--train-steps", "100"]) == 0
    assert "1           0.5            decayed" in capsys.readouterr().out


def test_a_length_that_is_known_counts(files, capsys):
    section = CONFIG.replace("\n", "\n    ")
    whole = f"trainer:\n  train_steps: 7\n  optimizer_config:\n    {section}".rstrip() + "\n"
    (files / "config.yaml").write_text(whole)
    words = ["params", "config.yaml", "--train-steps", "100"]
    assert main([*words, "--names", "names.txt"]) == 0
    assert "config.yaml: has `train_steps` 7, which counts" in capsys.readouterr().err
    assert main([*words, "--experiment", "tiny"]) == 2
    assert "the experiment says how long is trained" in capsys.readouterr().err


def test_json_has_a_row_for_each(files, capsys):
    assert main(["params", "config.yaml", "--names", "names.txt", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["path"], row["decayed"]) for row in rows] == [
        ("head/kernel", True),
        ("head/bias", False),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("head/kernel [8]\n", "error: config.yaml: Argument `exclude_from_weight_decay` has only"),
        ("a b c\n", "error: names.txt:1: expected a path"),
        ("", "error: names.txt: holds no names"),
    ],
)
def test_mistakes_are_told_with_their_file(files, names, message, capsys):
    (files / "names.txt").write_text(names)
    assert main(["params", "config.yaml", "--names", "names.txt"]) == 1
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "gone.safetensors"], "error: gone.safetensors cannot be read: No such file"),
        (["--weights", "gone.keras"], "error: gone.keras cannot be read: No such file"),
        (["--names", "binary.txt"], "error: binary.txt is not UTF-8 text"),
        (["--names", "gone.txt"], "error: gone.txt cannot be read: No such file or directory"),
        (["--weights", "config.yaml"], "error: config.yaml: is no safetensors file"),
    ],
)
def test_files_that_are_not_there_or_others_are_told(files, arguments, message, capsys):
    (files / "binary.txt").write_bytes(b"\xff\xfe")
    assert main(["params", "config.yaml", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--names=x", "--weights=y"]])
def test_one_model_must_be_given(files, arguments, capsys):
    assert main(["params", "config.yaml", *arguments]) == 2
    assert "give one of --experiment, --names and --weights" in capsys.readouterr().err


def test_names_need_no_framework(files):
    code = (
        "import sys\n"
        "from optimization.cli.app import main\n"
        "main(['params', 'config.yaml', '--names', 'names.txt'])\n"
        "print({'tensorflow', 'keras', 'torch', 'jax'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == TABLE + "set()\n", done.stderr


@pytest.mark.slow
def test_the_model_of_an_experiment(files):
    pytest.importorskip("tensorflow", reason="trains")
    (files / "tiny.yaml").write_text(
        "trainer: {optimizer_config: {param_groups: [{match: bias, learning_rate_multiplier: 2}]}}"
    )
    arguments = ["--import=tests.training.tiny", "--experiment=tiny"]
    status, out, err = run(["-m", "optimization", "params", str(files / "tiny.yaml"), *arguments])
    assert (status, err) == (0, "")
    assert "bias (match='bias')  SGD        2 " in out
    (files / "tiny.yaml").write_text(
        "trainer: {optimizer_config: {param_groups: [{match: biass, freeze: true}]}}"
    )
    status, _, err = run(["-m", "optimization", "params", str(files / "tiny.yaml"), *arguments])
    assert status == 1
    assert "error: trainer.optimizer_config: The parameter group 'biass' (match='biass') " in err


@pytest.mark.slow
def test_the_model_of_a_saved_file(files, capsys):
    keras = pytest.importorskip("keras")
    layers = [keras.Input((8,)), keras.layers.Dense(3, name="head")]
    keras.Sequential(layers, name="net").save(files / "net.keras")
    assert main(["params", "config.yaml", "--weights", "net.keras", "--variables"]) == 0
    out = capsys.readouterr().out
    assert "head/kernel" in out
    (files / "net.keras").write_text("")
    assert main(["params", "config.yaml", "--weights", "net.keras"]) == 1
    assert "net.keras cannot be loaded: " in capsys.readouterr().err
