"""docs/engines.md: the commands that tests/test_docs.py does not run are those of the programs."""

import shlex

import pytest

from tests.pages import DOCS, blocks, commands
from tools import launch_local

PAGE = DOCS / "engines.md"


def test_the_commands_are_those_of_the_programs(monkeypatch):
    found = [command.text for b in blocks(PAGE) if b.language == "bash" for command in commands(b)]
    launcher = next(shlex.split(c) for c in found if "launch_local" in c)
    torchrun = next(shlex.split(c) for c in found if c.startswith("torchrun"))
    started = []
    monkeypatch.setattr(launch_local, "launch", lambda *arguments: started.append(arguments) or 0)
    assert launcher[:3] == ["python", "-m", "tools.launch_local"]
    assert launch_local.main(launcher[3:]) == 0
    ((binary, workers, arguments),) = started
    assert binary.endswith("experiments/train.py")
    assert workers == 2
    assert arguments == ["--experiment=digits", "--mode=train", "--model_dir=/tmp/digits"]
    run = pytest.importorskip("torch.distributed.run")
    from experiments import digits_torch

    options = run.parse_args(torchrun[1:])
    assert (options.standalone, options.max_restarts) == (True, 3)
    digits_torch.parser().parse_args(options.training_script_args)
