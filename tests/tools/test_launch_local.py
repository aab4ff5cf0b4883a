"""Workers of one machine; `tests/training/test_workers.py` trains with them."""

import json
import sys

import pytest

from tools.launch_local import clusters, command, launch, main

# Unless all is well, worker 0 never ends by itself.
PROGRAM = """
import json, os, sys, threading
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
print("arguments", *sys.argv[1:])
if index == 1:
    sys.exit(int(sys.argv[1]))
threading.Event().wait(None if sys.argv[1] != "0" else 0)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return str(path)


def test_each_worker_has_its_place_in_one_cluster():
    configs = [json.loads(config) for config in clusters(3)]
    assert [config["task"] for config in configs] == [
        {"type": "worker", "index": index} for index in range(3)
    ]
    assert configs[0]["cluster"] == configs[1]["cluster"] == configs[2]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 3


def test_a_binary_is_a_file_or_a_module():
    strategy = "--params_override=runtime.distribution_strategy=multi_worker_mirrored"
    assert command("a/b.py", ["--x"]) == [sys.executable, "-u", "a/b.py", "--x", strategy]
    assert command("a.b", []) == [sys.executable, "-u", "-m", "a.b", strategy]


def test_lines_have_the_name_of_their_worker(program, capsys):
    assert launch(program, 2, ["0", "x"]) == 0
    strategy = "--params_override=runtime.distribution_strategy=multi_worker_mirrored"
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines == [f"worker {index}: arguments 0 x {strategy}" for index in range(2)]


def test_the_first_that_fails_ends_the_others(program, capsys, monkeypatch):
    monkeypatch.setattr("tools.launch_local._GRACE", 0.1)
    assert launch(program, 2, ["7"]) == 7
    assert capsys.readouterr().err == "worker 1 failed (7); the others end\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers=0"], "--workers must be at least 1, got 0"),
        (["--binary=none.py"], "--binary: there is no file 'none.py'"),
    ],
)
def test_a_mistake_is_told(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        main([*arguments, "--", "--experiment=digits"])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
