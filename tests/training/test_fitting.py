"""A run that a signal ends at an exact moment goes on as if it had never stopped.

The signals are real ones, which the process sends itself from inside of what TensorFlow runs.
"""

import io
import os
import signal
import threading

import pytest
import tensorflow as tf
from rich.console import Console

from optimization.training import Trainer, loop, run_experiment, signals
from optimization.training.checkpoint_files import latest_checkpoint
from optimization.training.errors import LockedError
from optimization.training.lock import locked_for
from optimization.training.results import read_results
from tests.training.tiny import assert_same_bits, quiet, read_summaries, run, stored, tiny

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
    def train():
        return run_experiment(tiny(*SETTINGS), "train_and_eval", tmp_path, console=quiet())

    with monkeypatch.context() as patch:
        place(patch, Sender(), at)
        with pytest.raises(SystemExit) as end:
            train()
    assert end.value.code == 143
    assert f"stopped by SIGTERM: {told}" in capsys.readouterr().err
    assert [p.stem for p in tmp_path.glob("*.index")] == ([f"ckpt-{saved}"] if saved else [])
    found = read_results(tmp_path)
    assert (found["status"], found["steps"]) == ("interrupted", saved or 0)
    assert found["error"] == "stopped by SIGTERM"
    train()
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


def test_several_workers_end_at_one_step_and_go_on_bit_for_bit(tmp_path):
    """Worker 1 gets the signal, of which 0 is the chief."""
    launcher = ["-m", "tools.launch_local", "--workers=2", "--binary=tests.training.signaled", "--"]
    settings = "--params_override=trainer.checkpoint_interval=12"

    def train(directory, **env):
        arguments = [*launcher, "--experiment=tiny", "--mode=train", settings]
        quiet_libraries = {"TF_CPP_MIN_LOG_LEVEL": "3"}
        return run([*arguments, f"--model_dir={directory}"], quiet_libraries | env)

    status, out, _ = train(tmp_path / "parts", AT="5")
    assert status == 143
    told = {line for line in out.splitlines() if "stopped by" in line}
    step = int(latest_checkpoint(str(tmp_path / "parts")).rpartition("-")[2])
    assert 6 <= step < 12
    text = f"stopped by SIGTERM: saved at step {step}; the same command goes on"
    assert told == {f"worker 0: {text}", f"worker 1: {text}"}
    assert "Traceback" not in out
    for name in ("parts", "whole"):
        assert train(tmp_path / name)[0] == 0
    assert_same_bits(stored(tmp_path / "parts/ckpt-12"), stored(tmp_path / "whole/ckpt-12"))


def test_a_binary_that_starts_ends_without_a_traceback(tmp_path):
    flags = ["--experiment=tiny", "--mode=train", f"--model_dir={tmp_path}"]
    status, out, err = run(["-m", "tests.training.signaled", *flags])
    assert status == 129
    assert (out, err) == ("", "stopped by SIGHUP: there was nothing to save\n")


def test_a_directory_is_trained_in_once_at_a_time(tmp_path):
    """An evaluation aside leaves the summaries to the one that writes them."""
    settings = tiny("trainer.validation_interval=6")
    told = Console(record=True, file=io.StringIO(), width=400)
    found = []

    def evaluated(step, values):
        with pytest.raises(LockedError, match="this process trains there since"):
            Trainer(settings, tmp_path, console=quiet()).train()
        if step == 12:
            aside = Trainer(settings, tmp_path, console=told)
            found.append(aside.evaluate_checkpoint())
            with pytest.raises(LockedError, match="this process evaluates there since"):
                aside.evaluate_continuously()

    one = Trainer(settings, tmp_path, console=quiet())
    one.train(evaluate=True, on_evaluation=evaluated)
    assert "no summaries and best weights are written: " in told.export_text()
    assert len(found) == 1
    assert one.train() == {}  # free again


def test_evaluations_beside_a_training_record(tmp_path):
    settings = tiny("trainer.checkpoint_interval=6,trainer.summary_interval=6")
    one = Trainer(settings, tmp_path, console=quiet())
    with locked_for(one, trains=True, evaluates=False):
        one.save()
        Trainer(settings, tmp_path, console=quiet()).evaluate_checkpoint()
    assert list(read_summaries(tmp_path / "validation")["loss"]) == [0]
