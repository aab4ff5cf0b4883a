"""docs/engines.md: Ray runs what the page shows; the commands are those of the programs."""

import shlex

import pytest

from tests.test_docs import DOCS, blocks, run_examples
from tools import launch_local

PAGE = DOCS / "engines.md"


@pytest.mark.slow
def test_ray_trains_as_the_page_says(tmp_path):
    pytest.importorskip("ray")
    ((block, printed),) = [pair for pair in run_examples(PAGE, tmp_path) if pair[1]]
    assert printed == block.text


def test_the_commands_are_those_of_the_programs(monkeypatch):
    commands = [block.text for block in blocks(PAGE) if block.language == "bash"]
    launcher, torchrun = (shlex.split(command) for command in commands)
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
