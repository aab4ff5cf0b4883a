"""20,000 inputs of the fuzzer, the same ones every time."""

import json

import pytest

pytest.importorskip("hypothesis")

from tools.fuzz import guard, running, targets
from tools.fuzz.__main__ import main
from tools.fuzz.choices import Choices
from tools.fuzz.guard import Fault, watched

# How many of each; those that take longest are the fewest.
INPUTS = {
    **{"yaml": 5000, "foreign_files": 3000, "weights": 3000, "overrides": 3000, "mappings": 1200},
    **{"lints": 700, "exports": 700, "groups": 700, "checkpoints": 700, "experiments": 600},
    **{"converters": 500, "sweeps": 450, "schema": 300, "commands": 150},
}


@pytest.fixture(scope="module", autouse=True)
def prepared():
    targets.prepare()


def test_there_are_20000_inputs():
    assert set(INPUTS) == set(targets.TARGETS)
    assert sum(INPUTS.values()) == 20_000


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
def test_nothing_but_config_errors(name):
    count = running.run(targets.TARGETS[name], INPUTS[name])
    assert count.inputs >= INPUTS[name]
    assert count.accepted >= INPUTS[name] // 200, "hardly anything is accepted"


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/hostname')",
        "__import__('this')",
        "eval('1')",
        "__import__('os').system('true')",
        "__import__('subprocess').Popen(['true'])",
        "__import__('socket').socket()",
    ],
)
def test_what_runs_code_or_opens_a_file_is_a_fault(code):
    compiled = compile(code, "<code>", "eval")

    def swallowing():
        try:
            eval(compiled)
        except Exception:
            return

    with pytest.raises(Fault), watched():
        swallowing()


def test_a_file_that_was_given_may_be_opened(tmp_path):
    (tmp_path / "a").write_text("1")
    with watched([tmp_path / "a"]):
        assert (tmp_path / "a").read_text() == "1"


def test_a_fault_is_raised_with_a_small_input():
    target = targets.Target(Choices.text, lambda text: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        running.run(target, 200)
    assert "The input is" in "".join(caught.value.__notes__)


def test_behind_the_last_byte_choices_are_the_first_ones():
    choices = Choices(b"")
    assert choices.one_of("abc") == "a"
    assert choices.integer() == choices.real() == 0
    assert choices.listed(Choices.text, 5) == []


def test_a_recorded_run_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guard, "cap_memory", lambda: None)  # of the process of all tests
    monkeypatch.setattr(guard, "SECONDS", 600)
    arguments = ["weights", "--inputs", "8", "--record", str(tmp_path / "record.jsonl")]
    assert main([*arguments, "--seeds", "3:5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["weights, seed 3", "weights, seed 4"]
    assert main([*arguments, "--seeds", "4:6"]) == 0
    assert capsys.readouterr().out.startswith("weights, seed 5: 8 inputs")


def test_a_fault_is_recorded_and_ends_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guard, "cap_memory", lambda: None)
    wrong = targets.Target(Choices.text, lambda text: 1 / 0)
    monkeypatch.setitem(targets.TARGETS, "wrong", wrong)
    record = tmp_path / "record.jsonl"
    assert main(["wrong", "--record", str(record)]) == 1
    assert "ZeroDivisionError" in json.loads(record.read_text())["fault"]
    assert "a fault" in capsys.readouterr().out


def test_an_unknown_target_is_told(capsys):
    assert main(["no_such"]) == 2
    assert "there is no target 'no_such'; there are yaml, " in capsys.readouterr().err
