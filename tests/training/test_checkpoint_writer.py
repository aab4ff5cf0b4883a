import os
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf

from optimization.training import NonFiniteWeightsError
from optimization.training.checkpoint_files import (
    broken_checkpoints,
    latest_checkpoint,
    whole_checkpoints,
)
from optimization.training.checkpoint_writer import CheckpointWriter
from optimization.training.checkpoints import damage, load, saved_settings
from optimization.training.errors import UnwrittenError


@pytest.fixture
def values():
    return {"model": {"a/b": tf.Variable([1.0, 2.0]), "c": tf.Variable(3)}}


@pytest.fixture
def writer(tmp_path, values):
    return CheckpointWriter(str(tmp_path / "run"), values, max_to_keep=2, settings="x: 1")


def save(writer, values, step):
    values["model"]["a/b"].assign([step, step])
    writer.save(step)


def value_of(path):
    values = {"model": {"a/b": tf.Variable([0.0, 0.0])}}
    load(path, values, partly=True)
    return float(values["model"]["a/b"][0])


def names(directory):
    return sorted(os.listdir(directory))


def test_the_newest_are_kept_and_listed_as_tensorflow_does(writer, values):
    for step in (9, 10, 11):
        save(writer, values, step)
    assert whole_checkpoints(writer.directory) == ["ckpt-10", "ckpt-11"]
    assert names(writer.directory)[0] == "checkpoint"
    assert len(names(writer.directory)) == 5
    state = tf.train.get_checkpoint_state(writer.directory)
    assert state.model_checkpoint_path == os.path.join(writer.directory, "ckpt-11")
    assert [os.path.basename(path) for path in state.all_model_checkpoint_paths] == [
        "ckpt-10",
        "ckpt-11",
    ]
    assert tf.train.latest_checkpoint(writer.directory) == latest_checkpoint(writer.directory)
    # Its own reader and manager go on from them.
    mine = tf.Variable([0.0, 0.0])
    saved = tf.train.Checkpoint(model={"a/b": mine})
    manager = tf.train.CheckpointManager(saved, writer.directory, max_to_keep=2)
    saved.read(manager.latest_checkpoint).expect_partial()
    assert mine.numpy().tolist() == [11.0, 11.0]
    manager.save(checkpoint_number=12)
    assert whole_checkpoints(writer.directory) == ["ckpt-11", "ckpt-12"]


def test_a_step_is_written_again(writer, values):
    save(writer, values, 3)
    values["model"]["a/b"].assign([7.0, 7.0])
    writer.save(3)
    assert value_of(latest_checkpoint(writer.directory)) == 7.0
    assert whole_checkpoints(writer.directory) == ["ckpt-3"]


class Killed(BaseException):
    """What no code catches."""


def interrupted(monkeypatch, count, action):
    """Has the `count`-th change of a directory not happen; returns whether that was reached."""
    calls = []

    def stop(original):
        def call(*arguments, **keywords):
            calls.append(original.__name__)
            if len(calls) == count:
                raise Killed
            return original(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "remove", "rmdir", "makedirs"):
            patch.setattr(os, name, stop(getattr(os, name)))
        try:
            action()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("again", [False, True])
def test_killed_at_any_moment_there_is_one_to_go_on_from(tmp_path, values, monkeypatch, again):
    """Also while a step is written again, and while the next start is killed in turn."""
    count, alive = 0, True
    while alive:
        count += 1
        directory = str(tmp_path / f"run-{count}")
        writer = CheckpointWriter(directory, values, max_to_keep=1)
        save(writer, values, 3)
        step = 3 if again else 4
        values["model"]["a/b"].assign([9.0, 9.0])
        alive = interrupted(monkeypatch, count, lambda: writer.save(step))  # noqa: B023
        for second in range(1, 4):
            copy = f"{directory}-{second}"
            shutil.copytree(directory, copy)
            following = CheckpointWriter(copy, values, max_to_keep=1)
            if interrupted(monkeypatch, second, following.recover):
                following.recover()
            found = latest_checkpoint(copy)
            assert value_of(found) in ((9.0,) if found.endswith("4") else (3.0, 9.0))
            assert not broken_checkpoints(copy)
            assert not [name for name in names(copy) if name.endswith(("_temp", "_whole"))]
    assert count > 6
    assert value_of(latest_checkpoint(directory)) == 9.0


def test_what_is_being_written_is_not_there_yet(writer, values):
    save(writer, values, 3)
    directory = writer.directory
    for ending in ("_temp", "_whole"):
        place = os.path.join(directory, f"ckpt-4{ending}")
        os.makedirs(place)
        shutil.copy(os.path.join(directory, "ckpt-3.index"), os.path.join(place, "ckpt-4.index"))
    shutil.copy(
        os.path.join(directory, "ckpt-3.data-00000-of-00001"),
        os.path.join(directory, "ckpt-4.data-00000-of-00001"),
    )
    assert latest_checkpoint(directory).endswith("ckpt-3")
    assert not broken_checkpoints(directory)
    writer.recover()
    assert latest_checkpoint(directory).endswith("ckpt-4")
    assert damage(latest_checkpoint(directory)) is None


def test_what_tensorflow_left_of_its_own_is_cleaned(writer, values):
    save(writer, values, 3)
    save(writer, values, 4)
    os.makedirs(os.path.join(writer.directory, "ckpt-5_temp"))
    os.remove(os.path.join(writer.directory, "ckpt-3.index"))  # while it was removed
    shutil.copy(__file__, os.path.join(writer.directory, "ckpt-3.notes"))  # of a user
    writer.recover()
    assert names(writer.directory) == [
        "checkpoint",
        "ckpt-3.notes",
        "ckpt-4.data-00000-of-00001",
        "ckpt-4.index",
    ]
    writer.recover()
    CheckpointWriter(f"{writer.directory}/nowhere", values).recover()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64", "complex64"])
def test_what_is_not_finite_is_not_written(tmp_path, dtype, value):
    bad = tf.Variable(tf.cast([1.0, value], dtype))
    sections = {"model": {"fine": tf.Variable(1.0)}, "optimizer": {"momentums/w": bad}}
    writer = CheckpointWriter(str(tmp_path), sections)
    with pytest.raises(NonFiniteWeightsError, match="after 5 steps .*: optimizer: momentums/w;"):
        writer.save(5)
    assert names(tmp_path) == []


def test_what_only_reports_may_be_infinite_and_what_was_so_from_the_start(tmp_path):
    mask = tf.Variable([0.0, -np.inf], trainable=False)
    statistics = tf.Variable([0.0], trainable=False)
    sections = {
        "model": {"mask": mask, "mean": statistics},
        "optimizer": {"inner/gradient_norm": tf.Variable(np.inf), "step": tf.Variable(1)},
        "trainer": {"means": tf.Variable(np.nan), "state": tf.Variable("{}")},
    }
    writer = CheckpointWriter(str(tmp_path), sections)
    writer.save(1)
    load(str(tmp_path / "ckpt-1"), sections)
    statistics.assign([np.nan])
    with pytest.raises(NonFiniteWeightsError, match="saved: model: mean;"):
        writer.save(2)


def full_after(monkeypatch, name, count):
    """Has the disk be full for the call `count` of a function of `os`."""
    calls, original = [], getattr(os, name)

    def call(*arguments, **keywords):
        calls.append(name)
        if len(calls) >= count:
            raise OSError(28, "No space left on device")
        return original(*arguments, **keywords)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("name", ["makedirs", "fsync", "rename", "replace", "remove"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_disk_that_is_full_loses_nothing(writer, values, monkeypatch, name, count):
    for step in (2, 3):
        save(writer, values, step)
    with monkeypatch.context() as patch:
        full_after(patch, name, count)
        reached = count <= {"makedirs": 1, "fsync": 2, "rename": 1, "replace": 3, "remove": 3}[name]
        message = r"ckpt-4 cannot be written: \[Errno 28\] No space left"
        with pytest.raises(UnwrittenError, match=message) if reached else nullcontext():
            save(writer, values, 4)
    writer.recover()
    found = latest_checkpoint(writer.directory)
    assert value_of(found) == int(found.rpartition("-")[2])
    assert damage(os.path.join(writer.directory, "ckpt-3")) is None


@pytest.mark.parametrize("short", ["data", "index"])
def test_what_was_not_written_whole_is_an_error_before_anything_is_removed(
    writer, values, monkeypatch, short
):
    save(writer, values, 3)
    write = tf.train.Checkpoint.write

    def cut(self, path):
        write(self, path)
        file = f"{path}.index" if short == "index" else f"{path}.data-00000-of-00001"
        os.truncate(file, 5)

    monkeypatch.setattr(tf.train.Checkpoint, "write", cut)
    with pytest.raises(UnwrittenError, match="ckpt-4 cannot be written: "):
        save(writer, values, 4)
    assert names(writer.directory) == ["checkpoint", "ckpt-3.data-00000-of-00001", "ckpt-3.index"]


def test_an_error_of_tensorflow_is_told_in_words(tmp_path, values):
    resource = pytest.importorskip("resource")
    values["model"]["large"] = tf.Variable(tf.zeros(100_000))
    writer = CheckpointWriter(str(tmp_path), values)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UnwrittenError, match="ckpt-1 cannot be written: .*too large"):
            writer.save(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_damaged_ones_are_set_aside_under_names_that_are_free(writer, values):
    for turn in (1, 2):
        for step in (3, 4):
            save(writer, values, step)
        os.remove(os.path.join(writer.directory, "ckpt-4.index"))
        taken = latest_checkpoint(writer.directory, "previous")
        writer.set_aside(taken)
        assert latest_checkpoint(writer.directory) == taken
        assert len(names(os.path.join(writer.directory, "damaged"))) == turn
    assert saved_settings(taken) == "x: 1"


def test_nothing_is_set_aside_where_the_list_says_to_go_back(writer, values):
    for step in (3, 4):
        save(writer, values, step)
    with open(os.path.join(writer.directory, "checkpoint"), "w") as file:
        file.write('model_checkpoint_path: "ckpt-3"\n')
    writer.set_aside(latest_checkpoint(writer.directory))
    assert whole_checkpoints(writer.directory) == ["ckpt-3", "ckpt-4"]
