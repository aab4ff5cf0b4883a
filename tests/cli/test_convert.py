"""`optfactory convert`, as it is typed."""

import json
import subprocess
import sys

import pytest

from optimization.cli.app import main

SFT = """\
learning_rate: 2.0e-5
lr_scheduler_type: cosine
warmup_ratio: 0.1
max_steps: 1000
weight_decay: 0.1
output_dir: out
"""


@pytest.fixture
def sft(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft.yaml").write_text(SFT)
    return "sft.yaml"


def test_a_commented_file_that_is_fine(sft, tmp_path, capsys):
    assert main(["convert", "--from", "hf", sft, "-o", "ours.yaml"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "sft.yaml: 11 values carried over, nothing lost, 1 key is no matter of the optimizer "
        "(see --verbose)\n"
    )
    text = (tmp_path / "ours.yaml").read_text()
    assert "weight_decay_rate: 0.1  # weight_decay\n" in text
    assert "beta_1: 0.9  # adam_beta1: default of transformers\n" in text
    assert "num_warmup_steps: 100  # warmup_ratio 0.1 of 1000, rounded up\n" in text
    assert main(["validate", "ours.yaml"]) == 0
    assert capsys.readouterr().out == "ours.yaml: fine (optimizer adamw, learning_rate hf_cosine)\n"


def test_without_from_the_source_is_guessed_and_told(sft, capsys):
    assert main(["convert", sft]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("# Converted by optfactory ")
    assert err.startswith("sft.yaml: read as hf (transformers, TrainingArguments)\n")


def test_verbose_lists_what_is_no_matter(sft, capsys):
    assert main(["convert", "--from", "hf", sft, "--verbose"]) == 0
    assert "sft.yaml: no matter, output and logging: output_dir\n" in capsys.readouterr().err


def test_strict_fails_where_anything_is_listed(sft, tmp_path, capsys):
    assert main(["convert", "--strict", sft]) == 0
    (tmp_path / sft).write_text(SFT + "optim: adamw_bnb_8bit\n")
    assert main(["convert", sft]) == 0
    assert main(["convert", "--strict", sft]) == 1
    assert "sft.yaml:7: optim: 'adamw_bnb_8bit' differs" in capsys.readouterr().err


def test_without_an_optimizer_it_fails_and_says_so(sft, tmp_path, capsys):
    (tmp_path / sft).write_text(SFT + "optim: lomo\n")
    assert main(["convert", sft, "-o", "ours.yaml"]) == 1
    err = capsys.readouterr().err
    assert "optimizer.type: could not be carried over; write one in the result" in err
    assert "hf_cosine" in (tmp_path / "ours.yaml").read_text()
    assert main(["validate", "ours.yaml"]) == 1


def test_there_and_back(sft, capsys):
    assert main(["convert", sft, "-o", "ours.yaml"]) == 0
    assert main(["convert", "--to", "hf", "ours.yaml", "-o", "back.json"]) == 0
    with open("back.json") as file:
        back = json.load(file)
    assert back == {
        "optim": "adamw_torch",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "cosine",
        "learning_rate": 2e-5,
        "warmup_steps": 100,
        "max_steps": 1000,
    }


def test_from_one_library_to_another(sft, tmp_path, capsys):
    (tmp_path / "args.yaml").write_text(
        "opt: adamw\nlr: 0.001\nsched: cosine\nsched_on_updates: true\nepochs: 30\n"
        "warmup_epochs: 0\nweight_decay: 0.0\nclip_grad: 1.0\n"
    )
    assert main(["convert", "--from", "timm", "--to", "hf", "args.yaml"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["lr_scheduler_type"], values["num_train_epochs"]) == ("cosine", 30.0)
    assert values["max_grad_norm"] == 1.0


def test_what_the_other_library_cannot_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.yaml").write_text(
        "optimizer: {type: ftrl}\nlearning_rate: {type: constant, constant: {learning_rate: 1}}\n"
    )
    assert main(["convert", "--to", "timm", "ours.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "sched: constant" in out
    assert err == (
        "ours.yaml: optimizer.type: 'ftrl' is not carried over: `opt` has no such optimizer\n"
    )
    assert main(["convert", "--to", "timm", "--strict", "ours.yaml"]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--from", "tim", "sft.yaml"], 2, "unknown library 'tim'; did you mean 'timm'?"),
        (["--to", "keras", "sft.yaml"], 2, "unknown library 'keras'"),
        (
            ["--from", "timm", "sft.yaml"],
            1,
            "sft.yaml: looks like hf, not like timm: write `--from",
        ),
        (["--to", "timm", "sft.yaml"], 1, "looks like hf, not like one of ours: write `--from hf`"),
        (["--to", "hf", "strange.yaml"], 1, "strange.yaml:1: x: unknown key"),
        (["missing.yaml"], 1, "missing.yaml: cannot be read: No such file or directory"),
        (["--from", "hf", "missing.toml"], 1, "missing.toml: cannot be read: No such file"),
        (["training_args.bin"], 1, "is a pickle, which can run code and is not read"),
        (["empty.yaml"], 1, "empty.yaml: is empty: it sets nothing"),
        (["strange.yaml"], 1, "looks like none that is known: say what it is by `--from garden|"),
        (["twice.yaml"], 1, "twice.yaml:2: duplicate key 'lr'"),
        (["sft.yaml", "-o", "no/such/place"], 2, "; make the folder 'no/such' first"),
        ([], 2, "Missing argument 'FILE'"),
    ],
)
def test_mistakes_are_told_without_a_traceback(arguments, status, message, sft, tmp_path, capsys):
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "strange.yaml").write_text("x: 1\n")
    (tmp_path / "twice.yaml").write_text("lr: 1\nlr: 2\n")
    assert main(["convert", *arguments]) == status
    err = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in err
    assert "Traceback" not in err


def test_no_framework_is_imported(sft):
    code = (
        "import sys\nfrom optimization.cli.app import main\n"
        "assert main(['convert', 'sft.yaml', '-o', 'o.yaml']) == 0\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'jax', 'numpy'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"
