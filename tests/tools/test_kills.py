"""Trainings that are killed come to what one comes to that never stopped."""

import json
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.training import tiny
from tests.training.tiny import run
from tools.kills import loops, sections, trainer
from tools.kills.__main__ import main
from tools.kills.comparing import differences
from tools.kills.processes import Steps, draw


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kills") / "whole"
    best = "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=mae"
    tiny.trainer(directory, best).train(evaluate=True)
    return directory


@pytest.fixture
def other(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "other")


def test_a_copy_is_the_same(whole, other):
    assert differences(whole, other) == []
    assert differences(other, whole) == []


def test_one_bit_of_a_weight_is_a_difference(tmp_path):
    for name, value in (("one", 1.0), ("other", np.nextafter(np.float32(1.0), np.float32(2.0)))):
        tf.train.Checkpoint(w=tf.Variable([value, 2.0])).write(str(tmp_path / name / "ckpt-1"))
    (found,) = differences(tmp_path / "one", tmp_path / "other")
    assert found.startswith("checkpoint ckpt-1: w/")


def test_a_damaged_checkpoint_is_a_difference(whole, other):
    data = next(other.glob("ckpt-12.data*"))
    data.write_bytes(data.read_bytes()[::-1])
    found = differences(whole, other)
    assert any(text.startswith("checkpoint ckpt-12: ") for text in found)
    assert any(text.endswith(": left over") and "Checksum" in text for text in found)


def test_what_is_missing_or_left_over_is_a_difference(whole, other):
    for path in other.glob("ckpt-6.*"):
        path.unlink()
    (other / "more.txt").write_text("more")
    found = differences(whole, other)
    assert all(text.startswith(("checkpoint ckpt-6: ", "file more.txt: ")) for text in found)
    assert "file more.txt: left over" in found
    assert differences(other, whole)[-1] == "file more.txt: missing"


def test_best_weights_of_another_step_are_a_difference(whole, other):
    for path in (other / "best").glob("ckpt-*"):
        path.rename(path.with_name(f"ckpt-1{path.suffix}"))
    found = differences(whole, other)
    assert {text.rpartition(": ")[2] for text in found} == {"missing", "left over"}
    assert all(text.startswith("checkpoint best/ckpt-") for text in found)


def test_a_summary_that_is_there_twice_is_a_difference(whole, other):
    (file,) = (other / "train").iterdir()
    shutil.copy(file, file.with_name(file.name + ".again"))
    found = differences(whole, other)
    assert found
    assert all(text.startswith("summary train: step ") for text in found)
    assert not any("steps_per_second" in text for text in found)


def test_another_best_is_a_difference_and_another_duration_is_none(whole, other):
    info = other / "best/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"seconds": 5.0}))
    assert differences(whole, other) == []
    info.write_text(json.dumps(json.loads(info.read_text()) | {"step": 1}))
    (found,) = differences(whole, other)
    assert found.startswith("file best/info.json: ")


def test_moments_are_those_of_the_seed():
    first, again = ([draw(random.Random(seed), 6) for _ in range(9)] for seed in (1, 1))
    assert first == again
    drawn = [draw(random.Random(seed), 6) for seed in range(200)]
    assert {kill.steps for kill in drawn} == set(range(7))


def test_steps_are_seen_from_outside():
    steps = Steps()
    steps.count()
    steps.count()
    assert steps.taken == 2


@pytest.mark.parametrize("kind", ["adamw", *sections.TOGETHER])
@pytest.mark.parametrize("side", loops.LOOPS)
def test_a_loop_goes_on_from_its_checkpoint(tmp_path, side, kind):
    class Stopping(Steps):
        def count(self):
            super().count()
            if self.taken == 20:
                raise KeyboardInterrupt

    loop = loops.LOOPS[side]
    loop(kind, tmp_path / "whole", Steps())
    with pytest.raises(KeyboardInterrupt):
        loop(kind, tmp_path / "stopped", Stopping())
    loop(kind, tmp_path / "stopped", Steps())
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


@pytest.mark.slow
def test_runs_of_every_type_that_are_killed():
    """In a process of its own, which may fork."""
    status, out, err = run(
        ["-m", "tools.kills", "--eager", "--kills=3", "--only", *sections.TOGETHER]
    )
    assert status == 0, err
    for row, name in zip(out.splitlines()[4:], sections.TOGETHER, strict=False):
        assert row.startswith(f"| `{name}` | 3 |")
        assert row.endswith("| none |")
    told = [kind for name in sections.TOGETHER for kind in trainer.experiment(name).task.layers]
    assert sorted(told) == sections.types()


def test_a_training_that_is_not_there_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "adamv"])
    assert "there is no training 'adamv'; there are adadelta, " in capsys.readouterr().err
