import os

import numpy as np
import pytest
import tensorflow as tf

from optimization.cli.app import main
from optimization.training import CheckpointError, average_checkpoints, run_experiment
from optimization.training.checkpoint_writer import CheckpointWriter
from optimization.training.checkpoints import holds_model_only, model_values
from optimization.training.errors import DamagedError
from tests.training.tiny import quiet, tiny, trainer

VALUES = {1: [1.0, 2.0], 2: [3.0, -2.0], 3: [0.1, 7.0], 4: [0.2, 1e-30]}


def saved(directory, values=VALUES, **more):
    """Writes checkpoints as a run does, with a moment beside the weights, a mask and a count."""
    for step, value in values.items():
        model = {
            "a/kernel": tf.Variable(value),
            "a/low": tf.Variable(value, dtype=tf.bfloat16),
            "a/mask": tf.Variable([0.0, -np.inf], trainable=False),
            "a/count": tf.Variable(step, trainable=False),
            **{name: tf.Variable(own) for name, own in more.items()},
        }
        sections = {"model": model, "optimizer": {"momentum": tf.Variable(value)}}
        CheckpointWriter(str(directory), sections, max_to_keep=9).save(step)
    return str(directory)


def test_the_mean_is_that_of_the_last_in_float64(tmp_path):
    path = average_checkpoints(saved(tmp_path), 3)
    assert path == str(tmp_path / "average-3/ckpt-4")
    assert holds_model_only(path)
    found = model_values(path)
    expected = np.mean(np.float32([VALUES[2], VALUES[3], VALUES[4]]).astype("float64"), axis=0)
    np.testing.assert_array_equal(found["a/kernel"], expected.astype("float32"))
    low = np.float64(tf.cast(tf.constant([VALUES[2], VALUES[3], VALUES[4]]), tf.bfloat16))
    low = tf.cast(low.mean(axis=0), tf.bfloat16).numpy()
    np.testing.assert_array_equal(found["a/low"], low)
    np.testing.assert_array_equal(found["a/mask"], [0.0, -np.inf])
    assert found["a/count"] == 4


def test_an_average_is_replaced_by_a_later_one_and_nothing_else_is(tmp_path):
    run = saved(tmp_path / "run")
    output = tmp_path / "out"
    average_checkpoints(run, 2, output)
    saved(tmp_path / "run", {5: [4.0, 4.0]})
    assert average_checkpoints(run, 1, output) == str(output / "ckpt-5")
    np.testing.assert_array_equal(model_values(str(output / "ckpt-5"))["a/kernel"], [4.0, 4.0])
    assert not (output / "ckpt-4.index").exists()
    before = sorted(os.listdir(run))
    for place in (run, tmp_path / "run/../run"):
        with pytest.raises(CheckpointError, match="holds ckpt-1, which is no average"):
            average_checkpoints(run, 2, place)
    assert sorted(os.listdir(run)) == before


def test_what_cannot_be_averaged_is_told(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="must hold 5 checkpoints to average, there is none"):
        average_checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="there is no such directory"):
        average_checkpoints(tmp_path / "gone")
    for last in (0, True, 2.0):
        with pytest.raises(ValueError, match="must be an integer >= 1"):
            average_checkpoints(tmp_path, last)
    run = saved(tmp_path / "run", {1: [1.0, 2.0]})
    with pytest.raises(CheckpointError, match="there is 1: ckpt-1; `trainer.max_to_keep` says"):
        average_checkpoints(run, 2)
    saved(tmp_path / "run", {2: [1.0, 2.0]}, more=[1.0])
    with pytest.raises(CheckpointError, match="ckpt-2 has other variables than .*ckpt-1.*: more"):
        average_checkpoints(run, 2)
    assert main(["average", run, "--last", "2"]) == 1
    assert capsys.readouterr().err.startswith("error: the checkpoint ")
    assert main(["average", run, "--last", "1"]) == 0
    path = os.path.join(run, "average-1", "ckpt-2")
    assert f"written: {path}, the mean of 1 checkpoints" in capsys.readouterr().out
    os.truncate(os.path.join(run, "ckpt-2.data-00000-of-00001"), 9)
    with pytest.raises(DamagedError, match="ckpt-2 cannot be read"):
        average_checkpoints(run, 1)


@pytest.mark.slow
def test_an_average_is_evaluated_and_exported(tmp_path):
    settings = ("task.hidden=4", "trainer.checkpoint_interval=4")
    trainer(tmp_path, *settings).train()
    average = average_checkpoints(tmp_path, 3)
    values = [model_values(str(tmp_path / f"ckpt-{step}")) for step in (4, 8, 12)]
    one = trainer(tmp_path, *settings)
    for variable in one.model.variables:
        if variable.dtype == "float32":
            variable.assign(np.mean([v[variable.path] for v in values], axis=0, dtype="float64"))
    expected = one.evaluate()
    config = tiny(*settings)
    found = run_experiment(config, "eval", tmp_path, checkpoint=average, console=quiet())
    assert found["validation loss"] == pytest.approx(expected["loss"], rel=1e-6)
    directory = os.path.dirname(average)
    run_experiment(config, "export", tmp_path, checkpoint=directory, console=quiet())
    assert (tmp_path / "export/model.keras").exists()
