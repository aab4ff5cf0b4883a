import pytest

from optimization.training import CheckpointError
from optimization.training.checkpoint_files import (
    find_checkpoint,
    latest_checkpoint,
    step_of,
    whole_checkpoints,
)


@pytest.fixture
def directory(tmp_path):
    """Checkpoints of the steps 2, 10 and 9, of which the last lacks its data."""
    path = tmp_path / "a [run]"
    path.mkdir()
    for name in ("ckpt-2", "ckpt-10", "weights"):
        (path / f"{name}.index").touch()
        (path / f"{name}.data-00000-of-00001").touch()
    (path / "ckpt-9.index").touch()
    (path / "params.yaml").touch()
    return path


def test_what_is_whole_in_the_order_of_steps(directory):
    assert whole_checkpoints(str(directory)) == ["weights", "ckpt-2", "ckpt-10"]
    assert whole_checkpoints(str(directory / "nowhere")) == []
    assert step_of(str(directory / "ckpt-10")) == 10
    assert step_of("weights") is None


@pytest.mark.parametrize(
    ("record", "latest"),
    [
        (None, "ckpt-10"),
        ('model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-10"\n', "ckpt-2"),
        ('model_checkpoint_path: "ckpt-9"\n', "ckpt-10"),
        ("garbage", "ckpt-10"),
    ],
)
def test_the_latest(directory, record, latest):
    if record is not None:
        (directory / "checkpoint").write_text(record)
    assert latest_checkpoint(str(directory)) == str(directory / latest)


def test_a_checkpoint_by_its_name_a_file_or_its_directory(directory, monkeypatch):
    for name in ("ckpt-2", "ckpt-2.index", "ckpt-2.data-00000-of-00001"):
        assert find_checkpoint(str(directory / name)) == str(directory / "ckpt-2")
    assert find_checkpoint(str(directory)) == str(directory / "ckpt-10")
    monkeypatch.chdir(directory)
    assert find_checkpoint("ckpt-2") == "ckpt-2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ckpt-3", "in that directory there are ckpt-10, ckpt-2, weights"),
        ("ckpt-9", "in that directory there are ckpt-10"),
        ("params.yaml", "which is a file of another kind"),
        ("nowhere/ckpt-1", "there is no checkpoint at '.*nowhere/ckpt-1'$"),
        ("", "there is no checkpoint at ''"),
    ],
)
def test_what_is_not_there_is_an_error(directory, name, message):
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint(str(directory / name) if name else "")
