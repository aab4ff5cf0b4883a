"""Checkpoints that earlier versions have written restore, and training goes on from them."""

import shutil

import pytest
import tensorflow as tf

from tests.keras.saved import state, take_steps
from tests.saved_goldens import STEPS, Goldens, assert_close, assert_same
from tests.training.saved import trainer_of

GOLDENS = Goldens("keras")
# The trainer's own part: another optimizer around, several, its own state, and what a step counts.
# The files of models have the same variables of every type.
QUICK = (
    "adafactor, torch",
    "accumulation, average, skipping",
    "dynamic loss scale",
    "group with another optimizer",
    "bfloat16, momentum, average",
    "rate that follows a metric, plateau",
    "rate that follows a metric, greedy",
)
NAMES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name, case in GOLDENS.cases.items()
    if "config" in case
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return GOLDENS.unpack(tmp_path_factory.mktemp("saved"))


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_the_trainer_trains_on(files, tmp_path, name):
    case = GOLDENS.cases[name]
    shutil.copytree(files / name / "run", tmp_path / "run")
    trainer = trainer_of(case, tmp_path / "run")
    assert trainer.restore() is not None
    assert trainer.step == STEPS
    model, optimizer = trainer.model, trainer.optimizer
    assert_same(state(model, optimizer), GOLDENS.values(name, "saved"))
    if case.get("follows"):  # the state that counts is not the optimizer's
        trainer.train(evaluate=True)
    else:
        take_steps(model, optimizer, case, STEPS)
    assert_close(state(model, optimizer), GOLDENS.values(name, "trained"), case)
    plain = files / name / "plain"
    if plain.with_suffix(".index").exists():  # of TensorFlow's own `Checkpoint`
        checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
        checkpoint.read(str(plain)).assert_consumed()
        assert_same(state(model, optimizer), GOLDENS.values(name, "saved"))
