import json

import keras
import numpy as np
import pytest

from optimization import TrainerConfig
from optimization.training import CheckpointError, NonFiniteWeightsError
from optimization.training.best import BestCheckpoint
from optimization.training.checkpoint_files import whole_checkpoints
from optimization.training.checkpoints import load_model


def model(seed):
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")], name="m")


def best(directory, a_model, fresh=True, higher=True, writable=True):
    config = TrainerConfig(
        best_checkpoint_export_subdir="best",
        best_checkpoint_eval_metric="f1",
        best_checkpoint_metric_comp="higher" if higher else "lower",
    )
    return BestCheckpoint(str(directory), config, a_model, fresh, writable)


@pytest.mark.parametrize(
    ("higher", "offered", "kept"), [(True, [1, 3, 2, 3], [0, 1]), (False, [3, 1, 2, 1], [0, 1])]
)
def test_better_values_only_are_kept(tmp_path, higher, offered, kept):
    keeper = best(tmp_path, model(0), higher=higher)
    accepted = [i for i, value in enumerate(offered) if keeper.offer({"f1": float(value)}, i)]
    assert accepted == kept
    assert [path.stem for path in tmp_path.glob("*.index")] == [f"ckpt-{kept[-1]}"]


def test_the_best_is_remembered_unless_the_run_is_fresh(tmp_path):
    best(tmp_path, model(0)).offer({"f1": 0.8}, 1)
    assert best(tmp_path, model(0), fresh=False).best == 0.8
    assert not best(tmp_path, model(0), fresh=False).offer({"f1": 0.7}, 2)
    assert best(tmp_path, model(0), fresh=True).offer({"f1": 0.7}, 2)


def test_the_weights_kept_are_loaded_into_a_model(tmp_path):
    source, target = model(1), model(2)
    best(tmp_path, source).offer({"f1": 1.0}, 4)
    assert not np.array_equal(target.weights[0].numpy(), source.weights[0].numpy())
    load_model(target, str(tmp_path))
    np.testing.assert_array_equal(target.weights[0].numpy(), source.weights[0].numpy())


def test_a_best_metric_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="'f1'; the evaluation gives loss"):
        best(tmp_path, model(0)).offer({"loss": 1.0}, 1)


def test_another_worker_decides_alike_and_writes_nothing(tmp_path):
    keeper = best(tmp_path / "best", model(0), writable=False)
    assert keeper.offer({"f1": 1.0}, 1)
    assert not keeper.offer({"f1": 0.5}, 2)
    assert list(tmp_path.iterdir()) == []


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("higher", [True, False])
def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path, higher):
    keeper = best(tmp_path, model(0), higher=higher)
    accepted = [keeper.offer({"f1": value}, step) for step, value in enumerate([NAN, 1.0, NAN])]
    assert accepted == [False, True, False]
    assert not any(keeper.offer({"f1": value}, 4) for value in (INF, -INF))
    assert keeper.best == 1.0
    assert keeper.info()["step"] == 1


def test_what_another_metric_is_may_be_nan(tmp_path):
    assert best(tmp_path, model(0)).offer({"f1": 1.0, "other": NAN}, 1)
    assert json.loads((tmp_path / "info.json").read_text())["metrics"] == {"f1": 1.0, "other": None}
    assert best(tmp_path, model(0), fresh=False).best == 1.0


@pytest.mark.parametrize("writable", [True, False])
def test_weights_that_are_not_finite_are_no_best(tmp_path, writable):
    a_model = model(0)
    keeper = best(tmp_path, a_model, writable=writable)
    keeper.offer({"f1": 1.0}, 1)
    a_model.weights[1].assign([1.0, np.inf])
    with pytest.raises(NonFiniteWeightsError, match="after 2 steps these .*: model: m/d/bias;"):
        keeper.offer({"f1": 2.0}, 2)
    assert keeper.best == 1.0
    assert whole_checkpoints(str(tmp_path)) == (["ckpt-1"] if writable else [])


@pytest.fixture
def kept(tmp_path):
    """A directory with the best weights of step 4."""
    best(tmp_path, model(1)).offer({"f1": 0.5, "loss": 2.0}, 4)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "is missing"),
        ("", "is damaged"),
        ("{bad", "is damaged"),
        ("[]", "is damaged"),
        ('{"metrics": 3}', "is damaged"),
        ('{"step": 4, "metric": "f1", "metrics": [1]}', "is damaged"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("[" * 20_000, "is damaged"),
        ('{"step": 2, "metric": "f1", "metrics": {"f1": 0.9}}', "is not of .*ckpt-4"),
    ],
)
def test_a_record_that_is_wrong_is_told_and_written_anew(kept, text, reason, capsys):
    path = kept / "info.json"
    right = path.read_text()
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    again = best(kept, model(0), fresh=False)
    out = capsys.readouterr().out
    assert reason.partition(".*")[0] in out
    assert out.endswith("it is written anew\n")
    assert again.best == 0.5
    assert path.read_text() == right
    assert not again.offer({"f1": 0.4}, 5)


def test_who_does_not_write_leaves_a_wrong_record(kept):
    (kept / "info.json").write_text("?")
    assert best(kept, model(0), fresh=False, writable=False).best == 0.5
    assert (kept / "info.json").read_text() == "?"


def test_of_damaged_weights_nothing_is_taken(kept, capsys):
    data = next(kept.glob("*.data*"))
    data.write_bytes(data.read_bytes()[:-9])
    again = best(kept, model(0), fresh=False)
    assert "ckpt-4 cannot be read" in capsys.readouterr().out
    assert again.best is None
    assert again.offer({"f1": 0.1}, 5)


def test_a_record_without_weights_is_told(kept, capsys):
    for path in [*kept.glob("ckpt*"), kept / "checkpoint"]:
        path.unlink()
    assert best(kept, model(0), fresh=False).best is None
    assert "is there, and the weights are not" in capsys.readouterr().out


def test_a_record_beside_weights_of_a_version_before_is_believed(kept):
    a_model = model(0)
    best(kept, a_model).writer.save(6)
    info = {"step": 6, "metric": "f1", "metrics": {"f1": 0.7}}
    (kept / "info.json").write_text(json.dumps(info))
    assert best(kept, a_model, fresh=False).info() == info
    (kept / "info.json").write_text("?")
    assert best(kept, a_model, fresh=False).info() is None


def config_of(metric):
    return TrainerConfig(best_checkpoint_export_subdir="best", best_checkpoint_eval_metric=metric)


def test_another_metric_that_decides_is_told(kept, capsys):
    again = BestCheckpoint(str(kept), config_of("loss"), model(0), False, True)
    assert "were the best by 'f1'; now 'loss' decides, which is 2 with them" in (
        capsys.readouterr().out
    )
    assert again.best == 2.0
    other = BestCheckpoint(str(kept), config_of("auc"), model(0), False, True)
    assert "info.json has no 'auc'" in capsys.readouterr().out
    assert other.best is None
    assert other.offer({"auc": 0.1}, 9)


def test_a_run_that_begins_says_nothing_of_what_was_there(kept, capsys):
    (kept / "info.json").write_text("?")
    keeper = best(kept, model(0), fresh=True)
    assert keeper.offer({"f1": 0.1}, 2)
    assert capsys.readouterr().out == ""
    assert whole_checkpoints(str(kept)) == ["ckpt-2"]
