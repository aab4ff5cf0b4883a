"""A run that a signal ends at an exact moment goes on as if it had never stopped.

The signals are real ones, which the process sends itself from inside of what TensorFlow runs.
"""

import os
import signal
import threading

import pytest
import tensorflow as tf

from optimization.training import Trainer, loop, run_experiment, signals
from optimization.training.results import read_results
from tests.training.tiny import assert_same_bits, quiet, read_summaries, stored, tiny

pytestmark = pytest.mark.slow

# Loops without end, an evaluation of ten batches, a stop and a rate that follow it.
SETTINGS = (
    "trainer.steps_per_loop=1000000,trainer.checkpoint_interval=12,trainer.summary_interval=12",
    "trainer.early_stopping={metric: loss, mode: min, patience: 9}",
    "task.validation_data.global_batch_size=4,task.hidden=3",
)


class Sender:
    """Sends a signal, once, and waits until the loop can know of it."""

    def __init__(self, number=signal.SIGTERM):
        self.number, self.sent = number, False

    def __call__(self):
        if not self.sent:
            self.sent = True
            heard, stop = threading.Event(), signals._current
            listener = stop._listener

            def hear(number):
                listener(number)
                heard.set()

            if listener is not None:
                stop._listener = hear
            os.kill(os.getpid(), self.number)
            if listener is not None:
                assert heard.wait(60)


def in_step(patch, send, at):
    """Sends when `at` steps are done, inside the compiled loop."""
    backward = loop.Steps._backward

    def sending(self, inputs):
        tf.py_function(lambda step: send() if step == at else None, [self._global_step], [])
        return backward(self, inputs)

    patch.setattr(loop.Steps, "_backward", sending)


def in_tracing(patch, send, _):
    """Sends while the loop is traced."""
    backward = loop.Steps._backward

    def sending(self, inputs):
        send()
        return backward(self, inputs)

    patch.setattr(loop.Steps, "_backward", sending)


def in_evaluation(patch, send, at):
    """Sends inside the compiled evaluation that is due after `at` steps."""
    replica = loop.Steps._validation_replica

    def sending(self, inputs):
        tf.py_function(lambda step: send() if step == at else None, [self._global_step], [])
        return replica(self, inputs)

    patch.setattr(loop.Steps, "_validation_replica", sending)


def in_saving(patch, send, at):
    save = Trainer.save

    def sending(self):
        send()
        save(self)

    patch.setattr(Trainer, "save", sending)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    run_experiment(tiny(*SETTINGS), "train_and_eval", directory, console=quiet())
    return directory


@pytest.mark.parametrize(
    ("place", "at", "saved", "told"),
    [
        (in_step, 7, 8, "saved at step 8; the same command goes on"),
        (in_step, 5, 6, "saved at step 6; the same command goes on"),  # where it is to evaluate
        (in_evaluation, 6, 6, "saved at step 6; the same command goes on"),
        (in_evaluation, 12, 12, "saved at step 12; the same command goes on"),
        (in_tracing, 0, None, "no step was done yet, and nothing is saved; the same command"),
    ],
)
def test_it_goes_on_bit_for_bit(tmp_path, monkeypatch, capsys, whole, place, at, saved, told):
    def run():
        return run_experiment(tiny(*SETTINGS), "train_and_eval", tmp_path, console=quiet())

    with monkeypatch.context() as patch:
        place(patch, Sender(), at)
        with pytest.raises(SystemExit) as end:
            run()
    assert end.value.code == 143
    assert f"stopped by SIGTERM: {told}" in capsys.readouterr().err
    assert [p.stem for p in tmp_path.glob("*.index")] == ([f"ckpt-{saved}"] if saved else [])
    found = read_results(tmp_path)
    assert (found["status"], found["steps"]) == ("interrupted", saved or 0)
    assert found["error"] == "stopped by SIGTERM"
    run()
    assert_same_bits(stored(tmp_path / "ckpt-12"), stored(whole / "ckpt-12"))
    assert read_summaries(tmp_path / "validation") == read_summaries(whole / "validation")
    assert read_results(tmp_path)["status"] == "finished"


def test_saving_is_completed_and_a_notebook_gets_its_interrupt(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        in_saving(patch, Sender(signal.SIGINT), None)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(
                tiny("trainer.checkpoint_interval=4"), "train", tmp_path, console=quiet()
            )
    assert "stopped by SIGINT: nothing is new since step 4, which" in capsys.readouterr().err
    assert [path.stem for path in tmp_path.glob("*.index")] == ["ckpt-4"]


def test_a_trainer_alone_and_steps_that_are_not_compiled(tmp_path, monkeypatch):
    """An update of two batches is completed; SIGHUP has a status of its own."""
    accumulate = "trainer.optimizer_config.optimizer.sgd.gradient_accumulation_steps=2"
    config = tiny("runtime.run_eagerly=true", accumulate)
    one = Trainer(config, tmp_path, console=quiet())
    with monkeypatch.context() as patch:
        in_step(patch, Sender(signal.SIGHUP), 1)
        with pytest.raises(SystemExit) as end:
            one.train()
    assert end.value.code == 129
    assert one.step == 2
    assert int(one.optimizer.micro_step) == 0
    assert (tmp_path / "ckpt-2.index").exists()
