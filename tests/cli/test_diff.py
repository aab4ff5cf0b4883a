import json

import pytest

from optimization.cli.app import main

TEXT = """\
optimizer: {type: sgd, sgd: {momentum: 0.9}}
learning_rate: {type: linear, linear: {initial_learning_rate: 0.1, decay_steps: 100}}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        (tmp_path / name).write_text(text)
        return name

    write("a.yaml", TEXT)
    return write


def test_alike_files_exit_0(write, capsys):
    same = write("same.yaml", TEXT.replace("momentum: 0.9", "momentum: 0.9, nesterov: false"))
    assert main(["diff", "a.yaml", same]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_files_that_differ_exit_1(write, capsys):
    other = write("b.yaml", TEXT.replace("0.1", "0.2"))
    assert main(["diff", "a.yaml", other]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "learning_rate.linear.initial_learning_rate",
        "  - 0.1  (a.yaml:2)",
        "  + 0.2  (b.yaml:2)",
        "learning_rate: the curves differ most at step 0: 0.1 and 0.2",
    ]


def test_json(write, capsys):
    other = write("b.yaml", TEXT.replace("{type: sgd, sgd: {momentum: 0.9}}", "{type: adam}"))
    assert main(["diff", "a.yaml", other, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["differ"]
    kind, momentum = found["values"]
    assert kind["before"] == {"value": "sgd", "file": "a.yaml", "line": 1}
    assert momentum == {
        "path": "optimizer.sgd.momentum",
        "before": {"value": 0.9, "file": "a.yaml", "line": 1},
        "after": None,
    }
    assert found["curves"][0]["size"] == 0


def test_durations_are_compared_as_steps(write, capsys):
    share = write("share.yaml", TEXT.replace("100}", "10%}"))
    assert main(["diff", "a.yaml", share, "--train_steps", "1000"]) == 0
    assert main(["diff", "a.yaml", share]) == 1
    assert "the length of the training is not known" in capsys.readouterr().out


WHOLE = """\
task: {{train_data: {{global_batch_size: {batch}}}}}
trainer:
  train_steps: 100
  optimizer_config:
    optimizer: {{type: sgd, sgd: {{momentum: 0.9}}}}
    learning_rate: {{type: linear, linear: {{initial_learning_rate: 0.1}}}}
"""


def test_two_experiments_with_other_batches(write, capsys):
    files = [write(f"{batch}.yaml", WHOLE.format(batch=batch)) for batch in (8, 16)]
    assert main(["diff", *files]) == 1
    assert "the highest learning rate stays 0.1" in capsys.readouterr().out


def test_of_an_experiment_beside_a_section_the_section_counts(write, capsys):
    whole = write("whole.yaml", WHOLE.format(batch=8))
    assert main(["diff", whole, "a.yaml"]) == 0
    assert main(["diff", "a.yaml", whole]) == 0


def test_wrong_files_and_wrong_usage(write, capsys):
    wrong = write("wrong.yaml", TEXT.replace("momentum", "momentmu"))
    assert main(["diff", "a.yaml", wrong]) == 1
    assert "did you mean 'momentum'?" in capsys.readouterr().err
    assert main(["diff", "a.yaml"]) == 2


@pytest.mark.parametrize("command", ["diff", "show"])
def test_a_length_that_an_experiment_says_is_refused_with_what_the_command_has(
    command, write, capsys
):
    files = ["a.yaml", write("whole.yaml", WHOLE.format(batch=8))]
    assert main([command, *files, "--train-steps", "50"]) == 2
    err = " ".join(capsys.readouterr().err.split())
    says = "an experiment says it by `trainer.train_steps`: leave this option out, or write"
    assert f"{says} it in the file" in err or command == "show"
    assert f"{says} --params-override=trainer.train_steps=..." in err or command == "diff"
