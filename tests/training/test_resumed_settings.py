"""Whole runs that go on with other settings."""

import json
import shutil

import numpy as np
import pytest

from optimization.training import CheckpointError, resuming, run_experiment
from optimization.training.data import distributed_batches
from tests.training.tiny import quiet, tiny, trainer, weights

pytestmark = pytest.mark.slow

SECTION = "trainer.optimizer_config."
RATE, NONE = f"{SECTION}learning_rate=", f"{SECTION}warmup.type=null"
CONSTANT = f"{RATE}{{type: constant, constant: {{learning_rate: 0.1}}}}"
SLOWER = f"{RATE}{{type: constant, constant: {{learning_rate: 0.01}}}}"
LONGER = "trainer.train_steps=18"


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    directory = tmp_path_factory.mktemp("constant")
    run_experiment(tiny(CONSTANT, NONE), "train", directory, console=quiet())
    return directory


def copied(directory, tmp_path):
    return shutil.copytree(directory, tmp_path / "run")


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_without_a_choice_nothing_is_written(constant, tmp_path):
    run = copied(constant, tmp_path)
    before = contents(run)
    with pytest.raises(CheckpointError, match=r"constant.learning_rate: was 0.1, is 0.01\n"):
        run_experiment(tiny(SLOWER, NONE, LONGER), "train", run, console=quiet())
    # By the settings in the checkpoint, where those of the directory are gone.
    (run / "params.yaml").unlink()
    for train in (
        lambda config: run_experiment(config, "train", run, console=quiet()),
        lambda config: trainer(run, SLOWER, NONE, LONGER).train(),
    ):
        with pytest.raises(CheckpointError, match="restart_schedule"):
            train(tiny(SLOWER, NONE, LONGER))
    assert contents(run) == {p: c for p, c in before.items() if p.name != "params.yaml"}


def test_a_constant_rate_that_was_changed_holds_from_the_next_update_on(constant, tmp_path):
    run = copied(constant, tmp_path)
    going_on = trainer(run, SLOWER, NONE, LONGER, "trainer.resume=continue")
    going_on.train()
    assert float(going_on.optimizer.learning_rate) == np.float32(0.01)
    again = trainer(run, SLOWER, NONE, "trainer.train_steps=20")
    again.train()
    assert (again.step, float(again.optimizer.learning_rate)) == (20, np.float32(0.01))


def test_a_constant_rate_may_become_a_schedule_and_a_schedule_a_constant(constant, tmp_path):
    run = copied(constant, tmp_path)
    cosine = f"{RATE}{{type: cosine, cosine: {{initial_learning_rate: 0.2}}}}"
    one = trainer(run, cosine, NONE, LONGER, "trainer.resume=continue")
    one.train()
    other = trainer(run, SLOWER, NONE, "trainer.train_steps=20,trainer.resume=continue")
    other.train()
    assert float(other.optimizer.learning_rate) == np.float32(0.01)


def test_an_optimizer_with_the_same_variables_goes_on_where_that_was_chosen(constant, tmp_path):
    run = copied(constant, tmp_path)
    lion = f"{SECTION}optimizer.type=lion"
    with pytest.raises(CheckpointError, match="optimizer.type: was sgd, is lion"):
        trainer(run, CONSTANT, NONE, LONGER, lion).train()
    going_on = trainer(run, CONSTANT, NONE, LONGER, lion, "trainer.resume=continue")
    going_on.train()
    assert going_on.step == 18


def test_the_first_update_after_a_restart_has_the_first_rate_of_the_schedule(constant, tmp_path):
    run = copied(constant, tmp_path)
    warm = f"{SECTION}warmup={{type: linear, linear: {{warmup_steps: 50%}}}}"
    chosen = (CONSTANT, warm, LONGER, "trainer.resume=restart_schedule")
    going_on = trainer(run, *chosen)
    resuming.restore(going_on, going_on._sections, going_on.restore)
    before = weights(going_on)
    batches = iter(distributed_batches(going_on, going_on.config.task.train_data))
    rates = []
    for step in range(4):
        rates.append(float(going_on.optimizer.learning_rate))
        going_on.take_steps(batches)
        if step == 0:  # Of a rate of 0 there is the momentum alone, which goes on.
            moved = weights(going_on)["tiny/head/kernel"] - before["tiny/head/kernel"]
    # The warmup is 3 of the 6 steps that are left.
    assert rates == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])
    (momentum,) = (
        value for path, value in before.items() if "momentum" in path and "kernel" in path
    )
    np.testing.assert_allclose(moved, 0.9 * momentum, atol=1e-7)
    assert np.abs(moved).max() > 1e-5
    run_experiment(tiny(*chosen), "train", run, console=quiet())
    assert "schedule_start: 12" in (run / "params.yaml").read_text()
    assert (run / "params.1.yaml").read_text().startswith("# The settings of this run from step 0")


@pytest.mark.parametrize(("choice", "reductions"), [("continue", 3), ("restart_schedule", 0)])
def test_a_rate_that_follows_a_metric_starts_anew_only_in_a_restart(tmp_path, choice, reductions):
    plateau = {"initial_learning_rate": 0.1, "patience": 0, "threshold": 10.0, "factor": 0.5}
    kind = "hf_reduce_lr_on_plateau"
    follows = f"{RATE}{json.dumps({'type': kind, kind: plateau})}"
    every = "trainer.validation_interval=4"
    trainer(tmp_path, follows, NONE, every).train(evaluate=True)
    other = f"{LONGER},runtime.seed=1,trainer.resume={choice}"
    going_on = trainer(tmp_path, follows, NONE, every, other)
    resuming.restore(going_on, going_on._sections, going_on.restore)
    rate = float(going_on.optimizer.learning_rate)
    assert rate == pytest.approx(0.1 * 0.5**reductions)
