"""What runs do with checkpoints that are damaged, or in the way, or not finite."""

import io
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from optimization.training import (
    CheckpointError,
    NonFiniteLossError,
    NonFiniteWeightsError,
    Trainer,
    array_batches,
    run_experiment,
)
from optimization.training.checkpoint_files import latest_checkpoint, whole_checkpoints
from optimization.training.checkpoint_writer import CheckpointWriter
from optimization.training.errors import DamagedError, UnwrittenError
from tests.training.tiny import TinyTask, arrays, assert_same_bits, quiet, tiny, weights

BEST = "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=mae"
PREVIOUS = "trainer.on_damaged=previous"


def files_of(directory):
    """Returns every file in a directory, with what it holds."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a run that has ended, with checkpoints of the steps 6 and 12."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    run_experiment(tiny(BEST), "train_and_eval", directory, console=quiet())
    return directory


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that directory."""
    return shutil.copytree(trained, tmp_path / "run")


def said(config, directory):
    """Returns a trainer, and where it writes what it says."""
    out = io.StringIO()
    return Trainer(config, directory, console=Console(file=out, width=1000)), out


def truncate(run):
    data = next(run.glob("ckpt-12.data-*"))
    data.write_bytes(data.read_bytes()[:30])


def flip(run):
    data = next(run.glob("ckpt-12.data-*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(bytes(content))


def flip_index(run):
    content = bytearray((run / "ckpt-12.index").read_bytes())
    content[len(content) // 2] ^= 4
    (run / "ckpt-12.index").write_bytes(bytes(content))


def empty(run):
    (run / "ckpt-12.index").write_bytes(b"")


def lose_index(run):
    (run / "ckpt-12.index").unlink()


def lose_data(run):
    next(run.glob("ckpt-12.data-*")).unlink()


def poison(run):
    """As versions before wrote it."""
    key = "model/tiny.Shead.Sbias/.ATTRIBUTES/VARIABLE_VALUE"
    reader = tf.train.load_checkpoint(str(run / "ckpt-12"))
    names = list(reader.get_variable_to_shape_map())
    values = [reader.get_tensor(name) for name in names]
    values[names.index(key)] = np.array([np.nan], "float32")
    tf.raw_ops.SaveV2(
        prefix=str(run / "ckpt-12"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(value) for value in values],
    )


DAMAGES = [truncate, flip, flip_index, empty, lose_index, lose_data, poison]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_names_the_newest_whole_one_which_can_be_taken(run, damage):
    damage(run)
    before = files_of(run)
    with pytest.raises(DamagedError) as error:
        Trainer(tiny(), run, console=quiet()).train()
    assert f"the checkpoint {run / 'ckpt-12'} " in str(error.value)
    assert str(error.value).endswith(
        f"; the newest whole one is {run / 'ckpt-6'}, of step 6: set trainer.on_damaged=previous "
        "to take that"
    )
    with pytest.raises(DamagedError, match="newest whole one"):
        run_experiment(tiny(), "eval", run, console=quiet())
    assert files_of(run) == before

    evaluation, out = said(tiny(PREVIOUS), run)
    evaluation.evaluate_checkpoint(record=False)
    assert evaluation.step == 6
    assert files_of(run) == before
    training, out = said(tiny(PREVIOUS), run)
    training.train()
    told = out.getvalue().splitlines()[0]
    assert told.startswith("warning: ")
    assert f"{run / 'ckpt-6'}" in told
    assert "resumed at step 6" in out.getvalue()
    after = files_of(run)
    for name in before:
        if name.startswith("ckpt-12."):
            assert after[f"damaged/{name}"] == before[name]
    assert latest_checkpoint(str(run)) == str(run / "ckpt-12")


def test_a_resume_from_the_one_before_is_the_same_run(run, trained):
    flip(run)
    resumed = Trainer(tiny(BEST, PREVIOUS), run, console=quiet())
    resumed.train(evaluate=True)
    whole = Trainer(tiny(BEST), trained, console=quiet())
    whole.restore()
    assert_same_bits(weights(resumed), weights(whole))


def test_nothing_changes_where_a_checkpoint_is_damaged(run):
    flip(run)
    trainer = Trainer(tiny(), run, console=quiet())
    before = weights(trainer)
    with pytest.raises(DamagedError):
        trainer.restore()
    with pytest.raises(DamagedError):
        trainer.restore_weights(str(run / "ckpt-12"))
    assert_same_bits(weights(trainer), before)


def test_one_that_is_named_has_no_other_in_its_place(run):
    lose_data(run)
    flip_file = run / "ckpt-6.data-00000-of-00001"
    flip_file.write_bytes(flip_file.read_bytes()[:30])
    trainer = Trainer(tiny(PREVIOUS), run, console=quiet())
    with pytest.raises(DamagedError, match="no other checkpoint there is whole"):
        trainer.restore(str(run / "ckpt-6"))


@pytest.mark.parametrize("left", ["*.data-*", "*.index", "ckpt-12*", "checkpoint"])
def test_no_start_from_step_0_beside_files_of_checkpoints(run, left):
    kept = {path.name for path in run.glob(left)}
    for path in run.glob("c*"):
        if path.name not in kept or path.name == "ckpt-12.index":
            path.unlink()
    before = files_of(run)
    with pytest.raises(CheckpointError, match="holds files of checkpoints, but no .* whole: ") as e:
        run_experiment(tiny(), "train", run, console=quiet())
    assert all(name in str(e.value) for name in kept if (run / name).exists())
    assert "remove" not in str(e.value)
    assert files_of(run) == before


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00\xfe", b"model: here\n", b"[]"])
def test_a_list_that_names_nothing_is_told_and_the_newest_taken(run, content):
    (run / "checkpoint").unlink()
    if content is not None:
        (run / "checkpoint").write_bytes(content)
    trainer, out = said(tiny("trainer.train_steps=15"), run)
    assert trainer.restore() == str(run / "ckpt-12")
    kind = "is missing" if content is None else "names no checkpoint"
    assert out.getvalue().startswith(
        f"warning: {run / 'checkpoint'}, the list of checkpoints, {kind}: the newest whole "
        f"checkpoint is taken, {run / 'ckpt-12'}, of step 12\n"
    )
    trainer.save()
    assert 'model_checkpoint_path: "ckpt-12"' in (run / "checkpoint").read_text()


def test_a_list_that_names_what_is_gone_is_told(run):
    for path in run.glob("ckpt-12*"):
        path.unlink()
    trainer, out = said(tiny(), run)
    assert trainer.restore() == str(run / "ckpt-6")
    assert "names ckpt-12, which is not there" in out.getvalue()


NAME = 'run[lr=0.1] *?[a-z]\\ it\'s "é日" {a,b}'


@pytest.mark.slow
def test_a_directory_of_any_name_is_as_good_as_another(tmp_path, trained):
    directory = tmp_path / NAME

    def run(mode, *overrides, to=directory, **kwargs):
        return run_experiment(tiny(BEST, *overrides), mode, to, console=quiet(), **kwargs)

    run("train_and_eval", "trainer.train_steps=6")
    results = run("train_and_eval")
    assert whole_checkpoints(str(directory)) == ["ckpt-6", "ckpt-12"]
    both = [Trainer(tiny(BEST), place, console=quiet()) for place in (directory, trained)]
    assert all(trainer.restore() for trainer in both)
    assert_same_bits(*map(weights, both))
    loss = results["validation loss"]
    assert run("eval")["validation loss"] == loss
    assert run("eval", checkpoint=str(directory / "ckpt-6"))["validation loss"] != loss
    assert run("eval", checkpoint="ckpt-6")["validation loss"] != loss
    assert run("eval", checkpoint="best")
    assert run("continuous_eval", "trainer.continuous_eval_timeout=0")["validation loss"] == loss
    run("export", checkpoint="best")
    assert keras.models.load_model(directory / "export/model.keras")
    assert os.path.exists(directory / "export/saved_model/saved_model.pb")
    for place in (directory, directory / "best"):
        start = tiny(BEST)
        start.task.init_checkpoint = str(place)
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        assert Trainer(start, tmp_path / "other", console=quiet()).step == 0
    truncate(directory)
    with pytest.raises(DamagedError, match="newest whole one is .*ckpt-6, of step 6"):
        run("train")
    assert run("train", PREVIOUS)


class PoisonTask(TinyTask):
    """Feature 0 of one batch, the ninth of the run, is NaN."""

    def build_inputs(self, params, input_context=None):
        data = array_batches(arrays(params.is_training), params, input_context)
        if not params.is_training:
            return data

        def poison(index, batch):
            bad = tf.where(tf.equal(index, 8), tf.constant(np.nan), 1.0)
            return batch[0] * bad, batch[1]

        return data.enumerate().map(poison)


class DeadTask(PoisonTask):
    """A ReLU gives 0 for NaN, so that the loss looks as always once its kernel is NaN."""

    def build_model(self):
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input((3,)),
                layers.Dense(4, activation=quiet_relu, name="hidden"),
                layers.Dense(1, name="head"),
            ],
            name="tiny",
        )


def quiet_relu(x):
    return tf.where(x > 0, x, 0.0)


def poisoned(directory, *overrides, task=DeadTask):
    config = tiny("task.train_data.shuffle=false", *overrides)
    return Trainer(config, directory, console=quiet(), task=task(config.task))


def test_a_model_that_is_dead_behind_a_loss_that_looks_well_is_not_saved(tmp_path):
    settings = "trainer.max_to_keep=1,trainer.checkpoint_interval=2,trainer.summary_interval=100"
    trainer = poisoned(tmp_path, settings, "trainer.steps_per_loop=1")
    with pytest.raises(NonFiniteWeightsError) as error:
        trainer.train()
    assert str(error.value).startswith("after 10 steps these are not finite, and not saved: model:")
    assert "tiny/hidden/kernel" in str(error.value)
    assert str(error.value).endswith(
        f"The last good checkpoint is {tmp_path / 'ckpt-8'}, of step 8"
    )
    assert whole_checkpoints(str(tmp_path)) == ["ckpt-8"]
    again = poisoned(tmp_path / "other")
    again.restore(str(tmp_path / "ckpt-8"))
    assert all(np.isfinite(value).all() for value in weights(again).values())


def test_a_loss_that_is_nan_names_the_last_good_one_if_there_is_one(tmp_path):
    with pytest.raises(NonFiniteLossError) as error:
        poisoned(tmp_path / "none", task=PoisonTask).train()
    assert str(error.value).endswith("ckpt-6, of step 6")
    with pytest.raises(NonFiniteLossError) as error:
        poisoned(tmp_path, "trainer.checkpoint_interval=100", task=PoisonTask).train()
    assert str(error.value).endswith(f"There is no good checkpoint in {tmp_path}")


@pytest.mark.parametrize("evaluate", [False, True])
def test_best_weights_are_finite(tmp_path, evaluate):
    settings = "trainer.checkpoint_interval=100,trainer.validation_interval=3"
    with pytest.raises(NonFiniteWeightsError, match="There is no good checkpoint"):
        poisoned(tmp_path, BEST, settings).train(evaluate=evaluate)
    if evaluate:
        assert os.listdir(tmp_path / "best") != []
        assert whole_checkpoints(str(tmp_path / "best"))[-1] in ("ckpt-3", "ckpt-6")


@pytest.mark.parametrize("section", ["model", "optimizer"])
def test_each_variable_counts(tmp_path, section):
    trainer = Trainer(
        tiny("task.hidden=4", "trainer.optimizer_config.ema={average_decay: 0.9}"),
        tmp_path,
        console=quiet(),
    )
    for name, variable in trainer._sections[section].items():
        if variable.dtype.is_floating:
            before = variable.numpy()
            variable.assign(np.full_like(before, np.inf))
            with pytest.raises(NonFiniteWeightsError, match=f"saved: {section}: {name};"):
                trainer.save()
            variable.assign(before)
    assert os.listdir(tmp_path) == []
    trainer.save()


def test_an_unwritten_checkpoint_names_the_last_good_one(tmp_path, monkeypatch):
    write = CheckpointWriter._write

    def full(self, place):
        if place.endswith("ckpt-12"):
            raise OSError(28, "No space left on device")
        write(self, place)

    monkeypatch.setattr(CheckpointWriter, "_write", full)
    with pytest.raises(UnwrittenError) as error:
        run_experiment(tiny(), "train", tmp_path, console=quiet())
    assert str(error.value) == (
        f"the checkpoint {tmp_path / 'ckpt-12'} cannot be written: [Errno 28] No space left on "
        f"device. The last good checkpoint is {tmp_path / 'ckpt-6'}, of step 6"
    )


def test_a_run_that_has_ended_and_evaluations_leave_a_read_only_directory(run, monkeypatch):
    before, access = files_of(run), os.access

    def read_only(path, mode, **kwargs):
        return access(path, mode, **kwargs) and not mode & os.W_OK

    monkeypatch.setattr(os, "access", read_only)
    for mode in ("train", "train_and_eval", "eval"):
        run_experiment(tiny(BEST), mode, run, console=quiet())
    run_experiment(tiny(BEST), "eval", run, checkpoint="best", console=quiet())
    with pytest.raises(ValueError, match="cannot be written to: permission denied"):
        run_experiment(tiny("trainer.train_steps=20"), "train", run, console=quiet())
    assert files_of(run) == before


def test_what_a_killed_process_left_is_cleaned_by_a_training_alone(run):
    (run / "ckpt-9_temp").mkdir()
    (run / "best/ckpt-9_temp").mkdir()
    run_experiment(tiny(BEST), "eval", run, console=quiet())
    assert (run / "ckpt-9_temp").exists()
    assert (run / "best/ckpt-9_temp").exists()
    run_experiment(tiny(BEST), "train", run, console=quiet())
    assert not (run / "ckpt-9_temp").exists()
    assert not (run / "best/ckpt-9_temp").exists()


def test_the_first_checkpoint_may_have_been_cut_off(tmp_path):
    (tmp_path / "ckpt-6_temp").mkdir()
    (tmp_path / "ckpt-6_temp/ckpt-6_temp").mkdir()
    run_experiment(tiny(), "train", tmp_path, console=quiet())
    assert whole_checkpoints(str(tmp_path)) == ["ckpt-6", "ckpt-12"]


def test_a_checkpoint_that_was_removed_meanwhile_is_no_error_of_continuous_eval(run, monkeypatch):
    trainer = Trainer(tiny("trainer.continuous_eval_timeout=0"), run, console=quiet())

    def paths(directory, timeout):
        yield str(run / "ckpt-3")
        yield str(run / "ckpt-12")

    monkeypatch.setattr("optimization.training.trainer.new_checkpoints", paths)
    assert trainer.evaluate_continuously()
    truncate(run)
    with pytest.raises(DamagedError):
        trainer.evaluate_continuously()
