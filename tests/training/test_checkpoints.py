import types

import keras
import pytest
import tensorflow as tf

from optimization.training import CheckpointError
from optimization.training.checkpoint_files import latest_checkpoint
from optimization.training.checkpoint_writer import CheckpointWriter
from optimization.training.checkpoints import (
    by_path,
    holds_model_only,
    load,
    load_model,
    optimizer_variables,
    saved_settings,
)


def variable(value, path="v"):
    return types.SimpleNamespace(path=path, value=tf.Variable(value))


def section(**values):
    return {name.replace("__", "/"): tf.Variable(value) for name, value in values.items()}


def save(directory, sections, step=1, **settings):
    CheckpointWriter(str(directory), sections, **settings).save(step)


def restore(directory, sections):
    path = latest_checkpoint(str(directory))
    load(path, sections)
    return path


def test_a_path_used_twice_gets_a_number():
    first, second, third = (variable(0.0, "a/b") for _ in range(3))
    assert by_path([first, second, third]) == {
        "a/b": first.value,
        "a/b#2": second.value,
        "a/b#3": third.value,
    }


def test_values_come_back_by_path_whatever_the_order(tmp_path):
    save(tmp_path, {"model": section(a=1.0, b__c=2.0)}, 3)
    other = section(b__c=0.0, a=0.0)
    path = restore(tmp_path, {"model": other})
    assert path == str(tmp_path / "ckpt-3")
    assert float(other["a"]) == 1.0
    assert float(other["b/c"]) == 2.0


@pytest.mark.parametrize("name", ["a.b", "a.S", "a/b.c/.S", ".a", "a..", "a b", "a#2", "{}"])
def test_any_name_is_kept(tmp_path, name):
    save(tmp_path, {"model": {name: tf.Variable(5.0)}})
    mine = {name: tf.Variable(0.0)}
    restore(tmp_path, {"model": mine})
    assert float(mine[name]) == 5.0
    with pytest.raises(CheckpointError) as error:
        restore(tmp_path, {"model": {"other": tf.Variable(0.0)}})
    assert f"    model: {name}" in str(error.value).splitlines()


def test_layers_that_keras_numbered_anew_are_found_in_their_order(tmp_path):
    """Also where a name is in both, as after another layer was made before these."""
    saved = {
        "model": section(dense__kernel=1.0, dense_1__kernel=2.0, head__kernel=3.0),
        "optimizer": section(iteration=4, m__dense__kernel=5.0, m__dense_1__kernel=6.0),
    }
    save(tmp_path, saved)
    mine = {
        "model": section(dense_1__kernel=0.0, dense_10__kernel=0.0, head__kernel=0.0),
        "optimizer": section(m__dense_10__kernel=0.0, iteration=0, m__dense_1__kernel=0.0),
    }
    restore(tmp_path, mine)
    assert [float(v) for v in mine["model"].values()] == [1, 2, 3]
    assert [float(v) for v in mine["optimizer"].values()] == [6, 4, 5]
    model = types.SimpleNamespace(
        variables=[variable(0.0, "dense_7/kernel"), variable(0.0, "dense_8/kernel")]
    )
    load_model(model, str(tmp_path))
    assert [float(v.value) for v in model.variables] == [1, 2]


def test_what_does_not_fit_is_listed_and_nothing_changes(tmp_path):
    saved = section(same=1.0, gone=1.0, shape=[1.0, 2.0])
    save(tmp_path, {"model": saved})
    mine = section(same=9.0, new=9.0, shape=[9.0])
    with pytest.raises(CheckpointError) as error:
        restore(tmp_path, {"model": mine})
    assert str(error.value).splitlines()[1:] == [
        "  missing from the checkpoint (1):",
        "    model: new",
        "  left over in the checkpoint (1):",
        "    model: gone",
        "  of another shape (1):",
        "    model: shape: [2] in the checkpoint, [1] here",
    ]
    assert float(mine["same"]) == 9.0


def test_another_dtype_does_not_fit(tmp_path):
    save(tmp_path, {"model": {"a": tf.Variable([1.0])}})
    with pytest.raises(CheckpointError, match="model: a: float32 in the checkpoint, bfloat16 here"):
        restore(tmp_path, {"model": {"a": tf.Variable([1.0], dtype=tf.bfloat16)}})


def test_settings_are_saved_and_are_no_variables(tmp_path):
    save(tmp_path, {"model": section(a=1.0)}, 3, settings="a: é\n")
    values = section(a=0.0)
    path = restore(tmp_path, {"model": values})
    assert float(values["a"]) == 1.0
    assert saved_settings(path) == "a: é\n"
    assert holds_model_only(path)
    save(tmp_path, {"model": values}, 4)
    assert saved_settings(str(tmp_path / "ckpt-4")) == ""


def test_a_long_list_is_cut(tmp_path):
    save(tmp_path, {"model": section(a=1.0)})
    many = section(a=1.0, **{f"x{i:02d}": 0.0 for i in range(14)})
    with pytest.raises(CheckpointError, match=r"\(14\):(?s:.*)model: x09\n    and 4 more"):
        restore(tmp_path, {"model": many})


def test_a_checkpoint_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "ckpt-1.index").write_bytes(b"not an index")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(str(tmp_path / "ckpt-1"), {"model": section(a=1.0)})


def test_optimizers_of_every_kind_give_all_their_variables():
    weight = keras.Variable([1.0], name="w")
    plain = keras.optimizers.Adam(0.1)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1))
    for optimizer in (plain, scaled):
        optimizer.build([weight])
        found = optimizer_variables(optimizer)
        assert len(found) == len(optimizer.variables)
        assert {id(v) for v in found.values()} == {id(v.value) for v in optimizer.variables}
    assert any(name.startswith("inner/") for name in optimizer_variables(scaled))
    assert any("dynamic_scale" in name for name in optimizer_variables(scaled))


def save_two(directory):
    values = section(a=1.0)
    writer = CheckpointWriter(str(directory), {"model": values})
    writer.save(1)
    values["a"].assign(2.0)
    writer.save(2)


def restored(directory):
    values = section(a=0.0)
    restore(directory, {"model": values})
    return float(values["a"])


def test_a_damaged_list_of_checkpoints_loses_nothing(tmp_path):
    save_two(tmp_path)
    (tmp_path / "checkpoint").write_text("garbage")
    assert restored(tmp_path) == 2.0
    (tmp_path / "checkpoint").unlink()
    assert restored(tmp_path) == 2.0


def test_the_newest_whole_checkpoint_is_taken(tmp_path):
    save_two(tmp_path)
    for path in tmp_path.glob("ckpt-2.*"):
        path.unlink()
    assert restored(tmp_path) == 1.0


def test_files_without_a_whole_checkpoint_are_no_fresh_start(tmp_path):
    save_two(tmp_path)
    for path in tmp_path.glob("ckpt-*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="holds files of checkpoints, but no checkpoint that"):
        restored(tmp_path)


def test_a_truncated_checkpoint_is_an_error(tmp_path):
    values = {"weights": tf.Variable(tf.ones((1000,)))}
    save(tmp_path, {"model": values})
    data = next(tmp_path.glob("ckpt-1.data-*"))
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"ckpt-1 cannot be read"):
        restore(tmp_path, {"model": values})
