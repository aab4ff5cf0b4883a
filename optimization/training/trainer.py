"""`Trainer`: builds what an experiment describes, trains it, evaluates it and keeps it."""

import contextlib
import os
import typing
from collections.abc import Callable
from typing import Any

from rich.console import Console

from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import DataConfig, ExperimentConfig
from optimization.configs.printing import Text, call
from optimization.training import changes, checkpoints, metrics
from optimization.training.building import build_model, build_optimizer
from optimization.training.checkpoint_files import step_of
from optimization.training.errors import (
    CheckpointError,
    MisfitError,
    NonFiniteGradientsError,
    NonFiniteLossError,
    TrainingError,
)
from optimization.training.evaluation import Evaluation
from optimization.training.following import Follower
from optimization.training.inspection import (
    averages,
    learning_rates,
    nonfinite_variables,
    optimizer_values,
    shared_options,
    updates,
)
from optimization.training.progress import StepProgress, say
from optimization.training.registries import get_task_class
from optimization.training.report import describe_checkpoint, describe_settings
from optimization.training.runtime import build_strategy, dtype_policy, is_chief
from optimization.training.summaries import SummaryWriter

if typing.TYPE_CHECKING:
    from optimization.training.task import Task


class Trainer:
    """Trains and evaluates one experiment in one directory.

    Keras' global state (the counters behind layer names, and the seeds of Keras, NumPy and Python)
    is set anew, so that two trainers of one config do the same.

    Args:
        config: The experiment; it is validated and copied.
        model_dir: Where checkpoints, summaries and the best weights go.
        console: Where progress is written; None for standard output.
        task: The task; None for that registered for `config.task`.

    Attributes:
        config: The experiment, read-only.
        optimizer_config: Its optimizer section, with steps and batch sizes as numbers.
        task: The task.
        strategy: The distribution strategy.
        model: The model.
        optimizer: The optimizer, built.
        global_step: Training steps done, a `tf.Variable`.
        evaluated: Which checkpoint was evaluated last, in words; "" for none.

    Raises:
        ConfigError: If the config is wrong.
        TrainingError: If the model, the optimizer and the devices do not go together.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        model_dir: str | os.PathLike,
        *,
        console: Console | None = None,
        task: "Task | None" = None,
    ):
        import keras
        import tensorflow as tf

        if keras.backend.backend() != "tensorflow":
            raise TrainingError(
                "the trainer runs on Keras' TensorFlow backend, which is set to "
                f"{keras.backend.backend()!r}; set KERAS_BACKEND=tensorflow"
            )
        errors, _ = config.problems()
        if errors:
            raise ConfigError(errors)
        self.config = config.replace()
        self.config.lock()
        self.optimizer_config = self.config.sized_optimizer_config()
        self.model_dir = os.fspath(model_dir)
        self.task = task or get_task_class(config.task)(self.config.task, self.model_dir)
        keras.utils.clear_session()
        keras.utils.set_random_seed(self.config.runtime.seed)
        self.strategy = build_strategy(self.config.runtime)
        self.chief = is_chief(self.strategy)
        self._console = console or Console()
        if not self.chief:
            self._console = Console(quiet=True)
        self._resumes = checkpoints.latest_checkpoint(self.model_dir) is not None
        self._accumulation, self._on_nonfinite = shared_options(self.optimizer_config)
        with self.strategy.scope(), dtype_policy(self.config.runtime):
            self.model = build_model(self.task, initialize=not self._resumes)
            self.optimizer = build_optimizer(
                self.task,
                self.optimizer_config,
                self.config.runtime,
                self.model,
                self._accumulation,
            )
            self._train_metrics = self.task.build_metrics(training=True)
            self._validation_metrics = self.task.build_metrics(training=False)
        self._follower = Follower(self.optimizer_config, self.optimizer)
        # Counted once in each process, whatever the strategy.
        self.global_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._steps = self._build_steps()
        self._store = checkpoints.CheckpointStore(
            self.model_dir,
            {
                "model": checkpoints.by_path(self.model.variables),
                "optimizer": checkpoints.optimizer_variables(self.optimizer),
                "trainer": {"global_step": self.global_step, **self._follower.variables()},
            },
            max_to_keep=self.config.trainer.max_to_keep,
            writable=self.chief,
            settings=self.config.to_yaml(),
        )
        self._evaluation = Evaluation(
            self._steps,
            self._validation_metrics,
            self.optimizer,
            self._validation_batches,
            self._build_best(),
            self._console,
        )
        self.evaluated = ""

    def __repr__(self) -> str:
        steps = Text(f"{self.step} of {self.config.trainer.train_steps}")
        return call(type(self).__name__, self.task, model_dir=self.model_dir, step=steps)

    # ---- building ------------------------------------------------------------------------------

    def _build_steps(self) -> Any:
        from optimization.training.loop import Steps

        return Steps(
            self.strategy,
            self.task,
            self.model,
            self.optimizer,
            self._train_metrics,
            self._validation_metrics,
            self.global_step,
            accumulation=self._accumulation,
            finite_means=self._on_nonfinite == "skip",
            eager=self.config.runtime.run_eagerly,
            xla=self.config.runtime.enable_xla,
        )

    def _build_best(self) -> checkpoints.BestCheckpoint | None:
        trainer = self.config.trainer
        if not trainer.best_checkpoint_export_subdir:
            return None
        return checkpoints.BestCheckpoint(
            os.path.join(self.model_dir, trainer.best_checkpoint_export_subdir),
            trainer.best_checkpoint_eval_metric,
            trainer.best_checkpoint_metric_comp == "higher",
            self.model,
            fresh=not self._resumes,
            writable=self._writes(),
        )

    def _batches(self, data: DataConfig, first: int = 0, count: int = -1) -> Any:
        """Returns the distributed batches from number `first` on, `count` of them if not -1."""
        if data.seed is None:
            data = data.replace(seed=self.config.runtime.seed)

        def of_worker(context: Any) -> Any:
            # A global batch is one element for each replica of the worker.
            elements = context.num_replicas_in_sync // context.num_input_pipelines
            dataset = self.task.build_inputs(data, context).skip(first * elements)
            return dataset if count == -1 else dataset.take(count * elements)

        return self.strategy.distribute_datasets_from_function(of_worker)

    def _validation_batches(self) -> Any:
        count = self.config.trainer.validation_steps
        return self._batches(self.config.task.validation_data, count=count)

    # ---- saving and restoring ------------------------------------------------------------------

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
        """
        path = path or checkpoints.latest_checkpoint(self.model_dir)
        if path is None:
            return None
        found = changes.since(path, self.config)
        changes.check_identity(path, found)
        try:
            return self._store.restore(path)
        except MisfitError as error:
            raise changes.explained(path, found, error) from error

    def save(self) -> None:
        """Writes a checkpoint of everything that training goes on from."""
        self._store.save(self.step)

    # ---- training ------------------------------------------------------------------------------

    def train(
        self, evaluate: bool = False, on_start: Callable[[], None] | None = None
    ) -> dict[str, float]:
        """Trains to `train_steps`, from the latest checkpoint of `model_dir` on if there is one.

        Args:
            evaluate: Whether to evaluate every `validation_interval` steps and at the end.
            on_start: Called when the checkpoint, if there is one, has been restored, unless there
                is nothing left to train.

        Returns:
            The values of the last summary, and those of the last evaluation with "validation "
            before their names.

        Raises:
            NonFiniteLossError: If the loss becomes infinite or NaN, unless the optimizer's section
                says `on_nonfinite: skip`.
            NonFiniteGradientsError: If gradients are not finite, and the section says
                `on_nonfinite: raise`, or `max_consecutive_nonfinite` is exceeded.
            CheckpointError: If the checkpoint in `model_dir` does not fit.
            TrainingError: If the learning rate follows a metric, and nothing is evaluated or the
                validation does not report it.
        """
        self._follower.check(evaluate)
        restored = self.restore()
        total = self.config.trainer.train_steps
        if self.step >= total:
            self._say(
                f"trained already: {self.step} steps are done, trainer.train_steps is {total}; "
                f"set it above {self.step} to train on"
            )
            return _labeled(self.evaluate()) if evaluate else {}
        if restored:
            self._say(f"resumed at step {self.step} from {restored}")
            found = changes.since(restored, self.config)
            if found:
                self._say(changes.summary(found))
        elif self.config.task.init_checkpoint:
            self._say(f"initialized from {self.config.task.init_checkpoint}")
        if on_start is not None:
            on_start()
        for line in describe_settings(self.optimizer_config, self.optimizer):
            self._say(line)
        results: dict[str, float] = {}
        with (
            contextlib.closing(self._writer("train")) as writer,
            contextlib.closing(self._validation_writer()) as validation_writer,
            StepProgress(self._console, total, self.step) as progress,
        ):
            if self.step == 0:
                writer.write(learning_rates(self.optimizer), 0)
            first = self.step * self._accumulation
            batches = iter(self._batches(self.config.task.train_data, first))
            intervals = self._intervals(evaluate)
            while self.step < total:
                norm = self._run_loop(batches, intervals, progress)
                if self._due(self.config.trainer.summary_interval):
                    results.update(self._summarize(writer, norm, progress))
                if evaluate and self._due(self.config.trainer.validation_interval):
                    values = self.evaluate(validation_writer)
                    self._follower.step(values)
                    results.update(_labeled(values))
                if self._due(self.config.trainer.checkpoint_interval):
                    self.save()
        return results

    def _run_loop(self, batches: Any, intervals: list[int], progress: StepProgress) -> Any:
        """Trains to the next step at which something is due; returns the last gradient norm."""
        import tensorflow as tf

        stop = min((self.step // interval + 1) * interval for interval in intervals)
        stop = min(stop, self.config.trainer.train_steps)
        steps = tf.constant(stop - self.step, tf.int64)
        progress.start_loop()
        try:
            norm = self._steps.train(batches, steps)
        except (tf.errors.OutOfRangeError, StopIteration) as error:
            raise TrainingError(
                f"the training data ended before step {stop}: "
                f"{type(self.task).__name__}.build_inputs() must return a dataset without end "
                "for training, as `repeat()` makes one"
            ) from error
        except (tf.errors.InvalidArgumentError, ArithmeticError) as error:
            variables = nonfinite_variables(error)
            if variables is None:
                raise
            raise self._nonfinite_gradients(variables) from error
        loss = self._steps.train_means.result()["loss"]
        progress.end_loop(self.step)
        # Checked before anything is saved: the last checkpoint is one that can be gone on from.
        # With `on_nonfinite: skip` such a batch changes no weights, and the run goes on.
        if self._on_nonfinite != "skip" and not abs(loss) < float("inf"):
            raise NonFiniteLossError(
                f"the loss is {loss} after {self.step} steps; a smaller learning rate, a warmup or "
                "a gradient clip may help. The last checkpoint is from before"
            )
        return norm

    def _nonfinite_gradients(self, variables: str) -> NonFiniteGradientsError:
        return NonFiniteGradientsError(
            f"after {updates(self.optimizer)} updates the gradients of these variables are not "
            f"finite: {variables}; a smaller learning rate, a warmup or a gradient clip may help. "
            "The last checkpoint is from before"
        )

    def _intervals(self, evaluate: bool) -> list[int]:
        trainer = self.config.trainer
        intervals = [trainer.steps_per_loop, trainer.summary_interval, trainer.checkpoint_interval]
        return [*intervals, trainer.validation_interval] if evaluate else intervals

    def _due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.config.trainer.train_steps

    def _summarize(
        self, writer: SummaryWriter, norm: Any, progress: StepProgress
    ) -> dict[str, float]:
        """Reports the means since the last summary, and the learning rate of the next update.

        The norm is that of the last update's gradient, as the clips meet it.
        """
        values = self._steps.train_means.result() | metrics.results(self._train_metrics)
        values |= {"gradient_norm": float(norm)} | optimizer_values(self.optimizer)
        self._steps.train_means.reset()
        metrics.reset(self._train_metrics)
        rate = {"steps_per_second": progress.rate} if progress.rate else {}
        writer.write(values | rate, self.step)
        progress.show(values)
        return values

    # ---- evaluating ----------------------------------------------------------------------------

    def evaluate(self, writer: SummaryWriter | None = None) -> dict[str, float]:
        """Evaluates the validation data with the averaged weights, if the optimizer averages.

        Args:
            writer: Where the summaries go; None for a new file of `validation_summary_subdir`.

        Returns:
            The loss and the metrics. With `best_checkpoint_*` set, weights better than the best so
            far have been kept.

        Raises:
            TrainingError: If the validation data are empty.
        """
        if writer is None:
            with contextlib.closing(self._validation_writer()) as writer:
                return self.evaluate(writer)
        values = self._evaluation.run(self.step)
        writer.write(values, self.step)
        return values

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
        path = path or checkpoints.latest_checkpoint(self.model_dir)
        if path is None:
            raise CheckpointError(f"there is no checkpoint in {self.model_dir!r} to evaluate")
        alone = not record and checkpoints.holds_model_only(path)
        if alone:
            checkpoints.load_model(self.model, path)
            self.global_step.assign(step_of(path) or 0)
        else:
            self.restore(path)
        self.evaluated = describe_checkpoint(self, path, averages(self.optimizer))
        self._say(f"evaluating {self.evaluated}")
        if record:
            return self.evaluate()
        return self._evaluation.aside(self.step, as_they_are=alone)

    def evaluate_continuously(self) -> dict[str, float]:
        """Evaluates each new checkpoint, to that of `train_steps` or until none comes in time.

        Returns:
            The values of the last evaluation.

        Raises:
            CheckpointError: If no checkpoint came at all.
        """
        import tensorflow as tf

        trainer = self.config.trainer
        values: dict[str, float] | None = None
        for path in tf.train.checkpoints_iterator(
            self.model_dir, timeout=trainer.continuous_eval_timeout
        ):
            values = self.evaluate_checkpoint(path)
            if 0 < trainer.train_steps <= self.step:
                return values
        if values is None:
            waited = f"{trainer.continuous_eval_timeout} s"
            raise CheckpointError(f"no checkpoint came to {self.model_dir!r} in {waited}")
        return values

    def _writer(self, subdir: str) -> SummaryWriter:
        return SummaryWriter(os.path.join(self.model_dir, subdir) if self._writes() else None)

    def _writes(self) -> bool:
        """Whether this process writes: not one of other workers, nor of a read-only run."""
        read_only = os.path.isdir(self.model_dir) and not os.access(self.model_dir, os.W_OK)
        return self.chief and not read_only

    def _validation_writer(self) -> SummaryWriter:
        return self._writer(self.config.trainer.validation_summary_subdir)

    def _say(self, text: str) -> None:
        say(self._console, text)


def _labeled(values: dict[str, float]) -> dict[str, float]:
    return {f"validation {name}": value for name, value in values.items()}
