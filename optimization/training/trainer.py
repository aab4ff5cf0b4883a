"""`Trainer`: builds what an experiment describes, trains it, evaluates it and keeps it."""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.printing import Text, call
from optimization.training import building, checkpoints, inspection, resuming, signals
from optimization.training.best import BestCheckpoint
from optimization.training.checkpoint_files import latest_checkpoint, new_checkpoints, step_of
from optimization.training.data import distributed_batches
from optimization.training.errors import CheckpointError, DamagedError, TrainingError
from optimization.training.fitting import Fit, OnEvaluation
from optimization.training.following import EarlyStopper, followers
from optimization.training.lock import locked_for, recording
from optimization.training.loop import Steps, check_loss, explained_errors
from optimization.training.progress import StepProgress, format_values, labeled, say
from optimization.training.registries import get_task_class
from optimization.training.report import best_directory, describe_checkpoint, describe_settings
from optimization.training.run_checkpoints import RunCheckpoints, sections_of, telling_the_last_good
from optimization.training.summaries import SummaryWriter
from optimization.training.task import Task
from optimization.training.workers import ends_with_the_others


class Trainer:
    """Trains and evaluates one experiment in one directory.

    Keras' global state (the counters behind layer names, and the seeds of Keras, NumPy and Python)
    is set anew, so that two trainers of one config do the same.

    >>> trainer = Trainer(get_experiment("tiny"), model_dir)

    Args:
        config: The experiment; it is validated and copied.
        model_dir: Where checkpoints, summaries and the best weights go.
        console: Where progress is written, by the chief of several workers; None: standard output.
        task: The task; None for that registered for `config.task`.

    Attributes:
        config: The experiment, read-only.
        optimizer_config: Its optimizer section, with steps and batch sizes as numbers.
        task: The task.
        strategy: The distribution strategy.
        model: The model.
        optimizer: The optimizer, built.
        global_step: Training steps done, a `tf.Variable`.
        evaluation_due: Whether the evaluation at that step is still to be done, a `tf.Variable`.
        writes: Whether this process may write there.
        resumption: How the run goes on from the latest checkpoint, and what has changed since.
        stopper: What ends a training that no longer gets better.
        evaluated: Which checkpoint was evaluated last, in words; "" for none.

    Raises:
        ConfigError: If the config is wrong.
        TrainingError: If the model, the optimizer and the devices do not go together.
    """

    @ends_with_the_others
    def __init__(
        self,
        config: ExperimentConfig,
        model_dir: str | os.PathLike,
        *,
        console: Console | None = None,
        task: Task | None = None,
    ):
        if keras.backend.backend() != "tensorflow":
            raise TrainingError(
                "the trainer runs on Keras' TensorFlow backend, which is set to "
                f"{keras.backend.backend()!r}; set KERAS_BACKEND=tensorflow"
            )
        errors, _ = config.problems()
        if errors:
            raise ConfigError(errors)
        self.model_dir = os.fspath(model_dir)
        latest = latest_checkpoint(self.model_dir, config.trainer.on_damaged)
        self.resumption = resuming.of_checkpoint(config.replace(), latest)
        self.config = self.resumption.config
        self.config.lock()
        runtime = self.config.runtime
        self.optimizer_config = self.config.sized_optimizer_config()
        self.task = task or get_task_class(config.task)(self.config.task, self.model_dir)
        keras.utils.clear_session()
        keras.utils.set_random_seed(runtime.seed)
        self.strategy = building.build_strategy(runtime)
        signals.current().take()  # TensorFlow takes SIGTERM for several workers.
        self.chief = building.is_chief(self.strategy)
        self.console = (console or Console()) if self.chief else Console(quiet=True)
        self._section = self.optimizer_config.optimizer.get()
        fresh = latest is None
        with self.strategy.scope(), building.dtype_policy(runtime):
            self.model = building.build_model(self.task, initialize=fresh)
            self.optimizer = building.build_optimizer(
                self.task, self.optimizer_config, runtime, self.model
            )
            metrics = [self.task.build_metrics(training=training) for training in (True, False)]
        self._innermost = inspection.innermost(self.optimizer)
        self._averages: bool = getattr(self._innermost, "averages_weights", False)
        # Counted once in each process, whatever the strategy.
        self.global_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.evaluation_due = tf.Variable(False, trainable=False)
        self._steps = Steps(self, *metrics)
        trainer = self.config.trainer
        self.stopper = EarlyStopper(trainer.early_stopping)
        self._followers = followers(self.optimizer_config, self.optimizer, self.stopper)
        self._sections = sections_of(self)
        # Not one of other workers, nor of a read-only run.
        read_only = os.path.isdir(self.model_dir) and not os.access(self.model_dir, os.W_OK)
        self.writes = writes = self.chief and not read_only
        self._checkpoints = RunCheckpoints(
            self.model_dir,
            self.config,
            self._sections,
            self._say,
            restored=self._steps.train_means.take,
        )
        self._summaries, self._validation_summaries = (
            SummaryWriter(os.path.join(self.model_dir, subdir), writes)
            for subdir in ("train", trainer.validation_summary_subdir)
        )
        best = best_directory(self.config, self.model_dir)
        self._best = best and BestCheckpoint(best, trainer, self.model, fresh, writes, self._say)
        self.evaluated = ""

    def __repr__(self) -> str:
        steps = Text(f"{self.step} of {self.config.trainer.train_steps}")
        return call(type(self).__name__, self.task, model_dir=self.model_dir, step=steps)

    @property
    def step(self) -> int:
        """Training steps done."""
        return int(self.global_step)

    def restore(self, path: str | None = None) -> str | None:
        """Restores the checkpoint `path`, or the latest one of `model_dir`.

        Returns:
            What was restored; None if there is no checkpoint.

        Raises:
            CheckpointError: If it is of another experiment or optimizer, or does not fit, telling
                the settings that have changed, or else the variables that differ.
            DamagedError: If it is damaged, unless it is the latest and `trainer.on_damaged` is
                `previous`. Nothing is changed then.
        """
        return self._checkpoints.restore(path)

    @property
    def stopped_early(self) -> bool:
        """Whether `early_stopping` has ended the training before its last step."""
        return self.step < self.config.trainer.train_steps and self.stopper.stops

    def best_evaluation(self) -> dict[str, Any] | None:
        """Returns the step, the deciding metric and the values of the best evaluation, if known."""
        return (self._best and self._best.info()) or self.stopper.best

    def save(self) -> None:
        """Writes a checkpoint of everything that training goes on from; all workers call it.

        Raises:
            NonFiniteWeightsError: If weights, moments or averages are not finite.
            UnwrittenError: If it cannot be written.
        """
        self._steps.keep()
        self._checkpoints.save(self.step, self.chief)

    @ends_with_the_others
    @telling_the_last_good
    def train(
        self,
        evaluate: bool = False,
        on_start: Callable[[], None] | None = None,
        on_evaluation: OnEvaluation = None,
    ) -> dict[str, float]:
        """Trains to `train_steps`, from the latest checkpoint of `model_dir` on if there is one.

        Args:
            evaluate: Whether to evaluate every `validation_interval` steps and at the end.
            on_start: Called when the checkpoint, if there is one, has been restored, unless there
                is nothing left to train.
            on_evaluation: Called after each evaluation with the step and the values; an error that
                it raises ends the training.

        Returns:
            The values of the last summary, and those of the last evaluation with "validation "
            before their names.

        Raises:
            NonFiniteLossError: If the loss becomes infinite or NaN, unless the optimizer's section
                says `on_nonfinite: skip`.
            NonFiniteGradientsError: If gradients are not finite, and the section says
                `on_nonfinite: raise`, or `max_consecutive_nonfinite` is exceeded.
            CheckpointError: If the checkpoint in `model_dir` does not fit, or was made with other
                settings, and `trainer.resume` does not say how to go on.
            TrainingError: If the learning rate follows a metric, and nothing is evaluated or the
                validation does not report it.
        """
        if self._followers and not evaluate:
            which = ", ".join(name.removesuffix("_state") for name in self._followers)
            raise TrainingError(f"{which} follows the validation: train with `evaluate=True`")
        with signals.stopping() as stop, locked_for(self, trains=True, evaluates=evaluate):
            return self._train(stop, evaluate, on_start, on_evaluation)

    def _train(
        self,
        stop: signals.Stop,
        evaluate: bool,
        on_start: Callable[[], None] | None,
        on_evaluation: OnEvaluation,
    ) -> dict[str, float]:
        start = functools.partial(self._checkpoints.start, self.chief)
        restored = resuming.restore(self, self._sections, start)
        if self._best:
            self._best.recover()
        trainer = self.config.trainer
        total = trainer.train_steps
        left = evaluate and bool(self.evaluation_due)  # by a run that a signal ended
        if self.step >= total and not left:
            self._say(
                f"trained already: {self.step} steps are done, trainer.train_steps is {total}; "
                f"set it above {self.step} to train on"
            )
            self._tell_changes()
            return labeled(self._evaluated(on_evaluation)) if evaluate else {}
        if self.stopped_early and not left:
            self._say(f"stopped already, after {self.step} steps: {self.stopper.reason()}")
            return labeled(self._evaluated(on_evaluation))
        if restored:
            self._say(f"resumed at step {self.step} from {restored}")
            self._tell_changes()
        elif self.config.task.init_checkpoint:
            self._say(f"initialized from {self.config.task.init_checkpoint}")
        if on_start is not None:
            with stop.section(raises=False):  # what it writes is whole
                on_start()
        for line in describe_settings(self.optimizer_config, self._innermost):
            self._say(line)
        return Fit(self, stop, evaluate, on_evaluation).run()

    def _run_loop(self, batches: Any, intervals: list[int], progress: StepProgress) -> Any:
        """Trains to the next step at which something is due; returns the last gradient norm."""
        before = self.step
        ends = [(before // interval + 1) * interval for interval in intervals]
        stop = min(*ends, self.config.trainer.train_steps)
        progress.start_loop()
        with explained_errors(self, stop), self._steps.ending.running():
            norm = self._steps.train(batches, tf.constant(stop - before, tf.int64))
        progress.end_loop(self.step)
        if self.step > before:
            loss = self._steps.train_means.result()["loss"]
            # Before anything is saved: the last checkpoint is one that can be gone on from.
            check_loss(loss, self.step, self._section)
            self._steps.check_skips(self.step)
        return norm

    def take_steps(self, batches: Any, count: int = 1) -> float:
        """Takes training steps, without checkpoints and summaries; returns the mean loss."""
        self._steps.train_means.reset()
        self._steps.train(batches, tf.constant(count, tf.int64))
        return self._steps.train_means.result()["loss"]

    def _evaluated(self, then: OnEvaluation) -> dict[str, float]:
        values = self._evaluate()
        if then is not None:
            then(self.step, values)
        return values

    def evaluate(self) -> dict[str, float]:
        """Evaluates the validation data with the averaged weights, if the optimizer averages.

        Returns:
            The loss and the metrics. With `best_checkpoint_*` set, weights better than the best so
            far have been kept.

        Raises:
            TrainingError: If the validation data are empty.
        """
        with recording(self) as records:
            return self._evaluate(records)

    def _evaluate(self, record: bool = True, alone: bool = False) -> dict[str, float]:
        """Evaluates; without `record`, as a look aside that leaves nothing behind.

        Weights that were restored `alone` are the averages already.
        """
        averaged, means = self._averages, self._steps.validation_means
        with self.evaluation_weights(alone):
            means.reset()
            ending = self._steps.ending
            with ending.interruptible(), ending.running():
                self._steps.validate(iter(self._validation_data))
            ending.check()
            values = means.results()
            if not values or values["loss"] != values["loss"]:
                raise TrainingError("the loss of the evaluation is NaN, or it had no examples")
            with signals.current().section(raises=False):  # what it writes is whole
                best = record and self._best and self._best.offer(values, self.step)
        notes = [note for note, holds in (("averaged weights", averaged), ("best", best)) if holds]
        note = f"  ({', '.join(notes)})" if notes else ""
        self._say(f"validation at step {self.step}  {format_values(values)}{note}")
        if record:
            with signals.current().section(raises=False):
                self._validation_summaries.write(values, self.step)
        return values

    def evaluation_weights(self, alone: bool) -> contextlib.AbstractContextManager[None]:
        """Has the model hold the averages inside, if there are any and it doesn't anyway."""
        swaps = self._averages and not alone
        return self._innermost.averaged() if swaps else contextlib.nullcontext()

    @functools.cached_property
    def _validation_data(self) -> Any:
        count = self.config.trainer.validation_steps
        return distributed_batches(self, self.config.task.validation_data, count=count)

    @ends_with_the_others
    def evaluate_checkpoint(self, path: str | None = None, record: bool = True) -> dict[str, float]:
        """Evaluates the checkpoint `path`, or the latest one of `model_dir`.

        Args:
            path: The checkpoint. If it holds weights alone, as that of the best evaluation, they
                are evaluated as they are: of an optimizer that averages they are the averages.
            record: Whether the evaluation is one of the run: its summaries are written, and better
                weights kept, as `evaluate` does.

        Raises:
            CheckpointError: If there is none, or it does not fit.
        """
        path = path or self._checkpoints.latest()
        if path is None:
            raise CheckpointError(f"there is no checkpoint in {self.model_dir!r} to evaluate")
        with recording(self, record) as records:
            return self._evaluate_at(path, record, records)

    def _evaluate_at(self, path: str, record: bool, records: bool) -> dict[str, float]:
        alone = self.restore_weights(path, allow_alone=not record)
        self._say(f"evaluating {self.evaluated}")
        return self._evaluate(records, alone)

    def restore_weights(self, path: str, allow_alone: bool = True) -> bool:
        """Restores a checkpoint; returns whether it is of weights alone, which may be averages."""
        path = self._checkpoints.sound(path) or path
        alone = allow_alone and checkpoints.holds_model_only(path)
        if alone:
            checkpoints.load_model(self.model, path)
            self.global_step.assign(step_of(path) or 0)
        else:
            self._checkpoints.load(path)
        self.evaluated = describe_checkpoint(self, path, self._averages)
        return alone

    def evaluate_continuously(self) -> dict[str, float]:
        """Evaluates each new checkpoint, to that of `train_steps` or until none comes in time.

        Returns:
            The values of the last evaluation.

        Raises:
            CheckpointError: If no checkpoint came at all.
        """
        timeout = self.config.trainer.continuous_eval_timeout
        values: dict[str, float] | None = None
        with locked_for(self, trains=False, evaluates=True):
            for path in new_checkpoints(self.model_dir, timeout):
                try:
                    values = self._evaluate_at(path, record=True, records=True)
                except DamagedError:
                    if os.path.exists(f"{path}.index"):
                        raise
                    continue  # The training has removed it in the meantime.
                if 0 < self.config.trainer.train_steps <= self.step:
                    break
        if values is None:
            raise CheckpointError(f"no checkpoint came to {self.model_dir!r} in {timeout} s")
        return values

    def _tell_changes(self) -> None:
        for note in self.resumption.notes:
            self._say(note)

    def _say(self, text: str) -> None:
        say(self.console, text)
