"""The digits on PyTorch; that they learn is seen with `experiments/digits.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from experiments import digits_torch  # noqa: E402

ROOT = Path(__file__).parents[2]

# Two processes train in argv[1], of which the second is killed at step 7 and both start again; then
# they train in argv[2] without that.
SCRIPT = """
import os, signal, sys
from experiments import digits_torch

rows = digits_torch.batch_rows

def dying(step, *arguments):
    if step == 7 and os.environ["RANK"] == "1" and not os.path.exists(sys.argv[3]):
        open(sys.argv[3], "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return rows(step, *arguments)

digits_torch.batch_rows = dying
digits_torch.dist.destroy_process_group = lambda: None  # It is needed once more.
settings = ["--train_steps=12", "--checkpoint_interval=5"]
digits_torch.main([f"--model_dir={sys.argv[1]}", *settings])
digits_torch.batch_rows = rows
digits_torch.dist.init_process_group = lambda backend, **options: None  # There is one.
digits_torch.main([f"--model_dir={sys.argv[2]}", *settings])
"""


def state_of(directory):
    return torch.load(directory / digits_torch.CHECKPOINT)


def tensors_of(value, path=""):
    """Yields the tensors and numbers in nested dicts and lists, by path."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        if isinstance(part, dict | list | tuple):
            yield from tensors_of(part, f"{path}/{key}")
        else:
            yield f"{path}/{key}", part


def test_the_batches_of_an_epoch_hold_each_example_once():
    rows = [digits_torch.batch_rows(step, 4, 10).tolist() for step in range(4)]
    assert len(set(rows[0] + rows[1])) == len(set(rows[2] + rows[3])) == 8
    assert rows[:2] != rows[2:]


@pytest.mark.parametrize(
    ("flag", "processes", "expected"),
    [
        ("--batch_size=63", 2, "error: --batch_size must be a multiple of 2, the number of"),
        ("--batch_size=6400", 1, "and at most 1437, got 6400"),
        ("--config_file=none.yaml", 1, "error: none.yaml: cannot be read"),
    ],
)
def test_what_would_end_each_process_is_told_before_they_connect(
    flag, processes, expected, tmp_path, monkeypatch
):
    pytest.importorskip("sklearn")
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr(digits_torch.dist, "init_process_group", None)
    with pytest.raises(SystemExit) as error:
        digits_torch.main([f"--model_dir={tmp_path}", flag])
    assert expected in str(error.value)


@pytest.mark.filterwarnings("ignore::optimization.ConfigWarning")
def test_a_training_that_is_over_has_no_loss(tmp_path, capsys):
    pytest.importorskip("sklearn")
    flags = [f"--model_dir={tmp_path}", "--train_steps=2"]
    digits_torch.main(flags)
    assert "\nloss " in capsys.readouterr().out
    digits_torch.main(flags)
    out = capsys.readouterr().out
    assert "trained already: 2 steps are done, --train_steps is 2\naccuracy " in out


@pytest.mark.slow
def test_torchrun_goes_on_bit_for_bit_where_a_process_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    directories = [tmp_path / "killed", tmp_path / "whole"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # The same command goes on: where torchrun itself starts processes again, gloo may have them
    # wait for each other for ever.
    launcher += ["--nproc-per-node=2", "--max-restarts=0"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(script), *map(str, directories), str(tmp_path / "was_killed")]
    first, done = (
        subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode != 0
    assert "exitcode: -9" in first.stderr
    assert done.returncode == 0, done.stderr
    assert f"resumed at step 5 from {directories[0] / digits_torch.CHECKPOINT}" in done.stdout
    assert done.stdout.count("resumed") == 1
    killed, whole = (dict(tensors_of(state_of(path))) for path in directories)
    assert killed["/step"] == 12
    assert killed.keys() == whole.keys()
    for name, value in whole.items():
        same = torch.equal(killed[name], value) if torch.is_tensor(value) else killed[name] == value
        assert same, name
