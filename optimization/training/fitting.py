"""The course of a training: steps, summaries, evaluations and checkpoints, each when it is due."""

import typing
from collections.abc import Callable
from typing import Any

from optimization.training import inspection
from optimization.training.data import distributed_batches
from optimization.training.progress import StepProgress, labeled
from optimization.training.signals import Stop, Stopped

if typing.TYPE_CHECKING:
    from optimization.training.trainer import Trainer

OnEvaluation = Callable[[int, dict[str, float]], None] | None


class Fit:
    """Trains a trainer from where it is to its end, or until a signal comes.

    A signal ends the steps after the present one, and an evaluation at once. What the checkpoint
    that is written then lacks to that of a run which goes on is the evaluation that is due at its
    step, if one is: `Trainer.evaluation_due` says so, and the run that goes on begins with it.

    Args:
        trainer: The trainer, with its checkpoint restored, if there is one.
        stop: What signals come by.
        evaluate: Whether to evaluate every `validation_interval` steps and at the end.
        on_evaluation: Called after each evaluation.
    """

    def __init__(self, trainer: "Trainer", stop: Stop, evaluate: bool, on_evaluation: OnEvaluation):
        self._trainer, self._stop = trainer, stop
        self._evaluate, self._on_evaluation = evaluate, on_evaluation
        self._results: dict[str, float] = {}
        self._saved = self._state()

    def _state(self) -> tuple[int, bool]:
        return self._trainer.step, bool(self._trainer.evaluation_due)

    def run(self) -> dict[str, float]:
        """Returns the values of the last summary and of the last evaluation.

        Raises:
            Stopped: After a signal; what is new is saved.
        """
        stop = self._stop
        stop.loses_nothing = lambda: self._trainer.step == self._saved[0]
        stop.told = self._nothing_new()
        try:
            with stop.section(raises=False):
                try:
                    self._train()
                except Stopped:
                    self._save_the_rest()
                    raise
        finally:
            stop.loses_nothing = lambda: True
        stop.told = "the training had come to its end"
        return self._results

    def _nothing_new(self) -> str:
        step = self._trainer.step
        if step == 0:
            return "no step was done yet, and nothing is saved; the same command begins anew"
        return f"nothing is new since step {step}, which is saved; the same command goes on"

    def _save_the_rest(self) -> None:
        if self._state() == self._saved:
            self._stop.told = self._nothing_new()
            return
        self._save()
        self._stop.told = f"saved at step {self._trainer.step}; the same command goes on"

    def _save(self) -> None:
        self._trainer.save()
        self._saved = self._state()

    def _train(self) -> None:
        """Takes the steps, and does what is due at each."""
        one, trainer = self._trainer, self._trainer.config.trainer
        total, steps = trainer.train_steps, self._trainer._steps
        intervals = [trainer.steps_per_loop, trainer.summary_interval, trainer.checkpoint_interval]
        if self._evaluate:
            intervals.append(trainer.validation_interval)
        with StepProgress(one.console, total, one.step) as progress:
            for writer in (one._summaries, one._validation_summaries):
                writer.start(one.step and one.step + 1)
            if one.step == 0:
                one._summaries.write(inspection.learning_rates(one.optimizer), 0)
            with steps.ending.interruptible():
                first = one.optimizer_config.ramp().before(one.step)
                batches = iter(distributed_batches(one, one.config.task.train_data, first))
            stops = self._validate()  # what a run that a signal ended has left
            while one.step < total and not stops:
                norm = one._run_loop(batches, intervals, progress)
                if self._due(trainer.summary_interval):
                    self._summarize(norm, progress)
                due = self._evaluate and self._due(trainer.validation_interval)
                one.evaluation_due.assign(due)
                if due or one.step < total:  # else there is nothing to go on with
                    steps.ending.check()
                stops = self._validate()
                if stops and not self._due(trainer.summary_interval):
                    self._summarize(norm, progress)
                if self._due(trainer.checkpoint_interval) or stops:
                    self._save()
            if self._state() != self._saved:  # It has done but what was left.
                self._save()
            if one.stopped_early:
                one._say(f"stopped early, at step {one.step}: {one.stopper.reason()}")

    def _summarize(self, norm: Any, progress: StepProgress) -> None:
        """Reports the means since the last summary, and the learning rate of the next update.

        The norm is that of the last update's gradient, as the clips meet it.
        """
        one, steps = self._trainer, self._trainer._steps
        values = steps.train_means.results()
        values |= {"gradient_norm": float(norm)} | inspection.optimizer_values(one.optimizer)
        steps.train_means.reset()
        more = {"steps_per_second": progress.rate} if progress.rate else {}
        if steps.norms is not None:
            more |= steps.norms.values()
        one._summaries.write(values | more, one.step)
        progress.show(values)
        self._results.update(values)

    def _due(self, interval: int) -> bool:
        step = self._trainer.step
        return step % interval == 0 or step == self._trainer.config.trainer.train_steps

    def _validate(self) -> bool:
        """Evaluates if that is due; returns whether the training ends with it."""
        one = self._trainer
        if not (self._evaluate and bool(one.evaluation_due)):
            return False
        values = one._evaluated(self._on_evaluation)
        for follower in one._followers.values():
            follower.step(values, one.step)
        one.evaluation_due.assign(False)
        self._results.update(labeled(values))
        return any(follower.stops for follower in one._followers.values())
