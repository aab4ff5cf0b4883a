"""`ExperimentConfig` describes a run: the task, the trainer and the machine."""

import posixpath
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Interval

from optimization.configs.base import Config
from optimization.configs.durations import TrainingLength
from optimization.configs.early_stopping import EarlyStoppingConfig
from optimization.configs.errors import ConfigError, Problem
from optimization.configs.fields import Section, field
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.task_config import Seed, TaskConfig
from optimization.configs.types import NonNegativeInt, PositiveFloat, PositiveInt, Unit
from optimization.schedules.metric import MetricLrConfig

TrainingSteps = Annotated[PositiveInt, Unit("training steps")]

_OF_GARDEN = """
    restrictions train_tf_while_loop train_tf_function eval_tf_function eval_tf_while_loop
    allow_tpu_summary loss_upper_bound recovery_begin_steps recovery_max_trials
    preemption_on_demand_checkpoint gpu_thread_mode dataset_num_private_threads
    per_gpu_thread_count tpu num_gpus worker_hosts task_index all_reduce_alg num_packs
    batchnorm_spatial_persistent tpu_enable_xla_dynamic_padder num_cores_per_replica
    default_shard_dim use_tpu_mp_strategy
    eval_tasks trainer_type task_sampler callbacks use_orbit enable_metrics_in_training
    time_history pipeline_sparse_and_dense_execution accumulation_steps
    best_ema_checkpoint_export_subdir best_ema_checkpoint_eval_metric
    best_ema_checkpoint_metric_comp
"""
GARDEN_KEYS = frozenset(_OF_GARDEN.split())
"""Keys of experiment files that only Model Garden's own trainer has: those of its 2.20, and then
those that its projects add."""

MODES = ("train", "eval", "train_and_eval", "continuous_eval", "export")


class _GardenSection(Config):
    """A section that Model Garden has too, with more keys."""

    def _unknown(self, name: Any, rest: str = "") -> str:
        if name in GARDEN_KEYS:
            return "is a setting of Model Garden's own trainer alone; leave it out"
        return super()._unknown(name, rest)


class TrainerConfig(_GardenSection):
    """Says how long the trainer trains, and when it evaluates, saves and writes summaries.

    >>> TrainerConfig(train_steps=1000, validation_interval=100).checkpoint_interval
    1000

    All intervals are in training steps. A training step is one update: of one batch, or of as many
    as the optimizer's section sets as `gradient_accumulation_steps`. An interval need not be a
    multiple of another: a loop ends wherever something is due.

    Attributes:
        optimizer_config: The optimizer, its learning rate, warmup and weight averaging.
        train_steps: When training ends; 0 where nothing is trained.
        steps_per_epoch: Training steps in one pass over the data, for what `optimizer_config`
            gives in epochs; None if nothing is. With `accumulation` these are micro-batches.
        tokens_per_step: Tokens of one training step, for what `optimizer_config` gives in tokens;
            None if nothing is. With `accumulation` these are of one micro-batch.
        validation_steps: Batches of one evaluation; -1 for all there are.
        validation_interval: Steps from one evaluation to the next; the end is evaluated too.
        steps_per_loop: The most steps that run without a return to Python.
        summary_interval: Steps from one entry in the TensorBoard summaries to the next.
        norm_summaries: Whether summaries have norms too, by parameter `groups` or by `layers`: of
            the gradient, of the update and of the weights, and the ratio of the last two, in the
            last step before the summary. It takes a copy of the weights; None is no cost at all.
        checkpoint_interval: Steps from one checkpoint to the next; the end is saved too.
        max_to_keep: Checkpoints kept; older ones are removed.
        on_damaged: What happens where the latest checkpoint is damaged: an `error` that names the
            newest one that is whole, or that `previous` one is taken.
        best_checkpoint_export_subdir: Where in `model_dir` the weights of the best evaluation are
            kept; "" for nowhere.
        best_checkpoint_eval_metric: The name of the metric that decides, "loss" for the loss.
        best_checkpoint_metric_comp: Whether a `higher` or a `lower` value is better.
        early_stopping: When a training that no longer gets better ends; None for never.
        max_skipped_share: A training ends with an error when this share of the last 200 updates
            were skipped, since gradients were not finite; None for no limit. How many in a row
            end it, says `max_consecutive_nonfinite` of the optimizer.
        continuous_eval_timeout: Seconds that `continuous_eval` waits for the next checkpoint;
            None for ever.
        validation_summary_subdir: Where in `model_dir` the summaries of evaluations go.
        resume: How a run goes on whose settings have changed: `continue` with the new ones, the
            schedules read at the same step; `extend` with another length alone, the schedules as
            they were; `restart_schedule` with the new ones, the schedules starting anew; `never`
            if a run must not go on at all; None for an error that tells what differs.
        schedule_start: The step at which all schedules start. `resume: restart_schedule` writes it
            to `params.yaml`; None is that of the run, 0 in a new one.
        schedule_end: The step at which lengths in per cent, and "remaining", end. `resume: extend`
            writes it to `params.yaml`; None is that of the run, `train_steps` in a new one.
    """

    optimizer_config: Section[OptimizationConfig] = field(default_factory=OptimizationConfig)
    train_steps: Annotated[NonNegativeInt, Unit("training steps")] = 0
    steps_per_epoch: TrainingSteps | None = None
    tokens_per_step: Annotated[PositiveInt, Unit("tokens")] | None = None
    validation_steps: Annotated[int, Ge(-1), Unit("batches")] = -1
    validation_interval: TrainingSteps = 1000
    steps_per_loop: TrainingSteps = 1000
    summary_interval: TrainingSteps = 1000
    checkpoint_interval: TrainingSteps = 1000
    norm_summaries: Literal["groups", "layers"] | None = None
    max_to_keep: PositiveInt = 5
    on_damaged: Literal["error", "previous"] = "error"
    best_checkpoint_export_subdir: str = ""
    best_checkpoint_eval_metric: str = ""
    best_checkpoint_metric_comp: Literal["higher", "lower"] = "higher"
    continuous_eval_timeout: Annotated[NonNegativeInt, Unit("seconds")] | None = 3600
    early_stopping: Section[EarlyStoppingConfig | None] = field(default=None)
    max_skipped_share: Annotated[float, Interval(gt=0, le=1)] | None = 0.9
    validation_summary_subdir: str = "validation"
    resume: Literal["continue", "extend", "restart_schedule", "never"] | None = None
    schedule_start: Annotated[NonNegativeInt, Unit("training steps")] | None = None
    schedule_end: TrainingSteps | None = None

    # Told by the experiment, whose task has it: the examples of a batch, before accumulation.
    _batch: ClassVar[int | None] = None

    def sized_optimizer_config(self) -> tuple[OptimizationConfig, list[Problem]]:
        """Returns `optimizer_config` with steps as numbers, and what keeps them from it."""
        return self.optimizer_config.sized(self.training_length())

    def training_length(self) -> TrainingLength:
        """Returns how long is trained, and where the schedules start and end."""
        start, end = self.schedule_start or 0, self.schedule_end
        section, batch = self.optimizer_config.optimizer.get(), self._batch
        if batch and section is not None:
            batch *= section.gradient_accumulation_steps
        steps = (self.train_steps or None, self.steps_per_epoch)
        return TrainingLength(*steps, start, end, batch, self.tokens_per_step)

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings, with steps as numbers where anything is trained."""
        twin = self
        unsized: list[Problem] = []
        if self.train_steps:
            twin = self.replace()
            twin.__dict__["optimizer_config"], unsized = self.sized_optimizer_config()
        problems, doubts = super(TrainerConfig, twin).problems()
        return [*problems, *unsized], doubts

    def check(self) -> Iterator[tuple[str, str]]:
        if self.validation_steps == 0:
            yield "validation_steps", "must be > 0, or -1 for all the data, got 0"
        start, end = self.schedule_start or 0, self.schedule_end or self.train_steps
        if start and end and start >= end:
            last = "schedule_end" if self.schedule_end else "train_steps"
            yield "schedule_start", f"must be < `{last}` {end}, got {start}"
        if self.best_checkpoint_export_subdir and not self.best_checkpoint_eval_metric:
            yield "best_checkpoint_eval_metric", "is needed with `best_checkpoint_export_subdir`"
        if self.best_checkpoint_eval_metric and not self.best_checkpoint_export_subdir:
            yield "best_checkpoint_export_subdir", "is needed with `best_checkpoint_eval_metric`"
        places = {"the training summaries": "train"}
        for name in ("validation_summary_subdir", "best_checkpoint_export_subdir"):
            value = getattr(self, name)
            place = posixpath.normpath(value.replace("\\", "/"))
            if not value and name == "best_checkpoint_export_subdir":
                continue
            if not value or place.startswith(("/", "..")) or place == ".":
                yield name, f"must be a directory inside `model_dir`, got {value!r}"
            elif place in places.values():
                owner = next(key for key, taken in places.items() if taken == place)
                yield name, f"must be a directory of its own, {value!r} holds {owner}"
            places[f"`{name}`"] = place


class RuntimeConfig(_GardenSection):
    """Sets the devices, the precision and the seed of a run.

    >>> RuntimeConfig(mixed_precision_dtype="float16").scales_dynamically
    True

    Attributes:
        distribution_strategy: `one_device`; `mirrored`, all devices of this machine (with a single
            device the same as `one_device`); `multi_worker_mirrored`, the workers that the
            environment variable TF_CONFIG names.
        mixed_precision_dtype: What layers compute in, their variables being float32; None leaves
            Keras' dtype policy as it is.
        loss_scale: With float16, the factor that keeps gradients from underflow: a number, or
            "dynamic", which None means too: an update that overflows on any device is skipped,
            and the factor halved.
        enable_xla: Whether XLA compiles the forward and backward pass; on one device only.
        run_eagerly: Whether training and evaluation run without `tf.function`, for debugging.
        seed: Of the weights, of random layers, and of the order of examples.
    """

    distribution_strategy: Literal["one_device", "mirrored", "multi_worker_mirrored"] = "mirrored"
    mixed_precision_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    loss_scale: Literal["dynamic"] | PositiveFloat | None = None
    enable_xla: bool = False
    run_eagerly: bool = False
    seed: Seed = 0

    def check(self) -> Iterator[tuple[str, str]]:
        if self.loss_scale is not None and self.mixed_precision_dtype != "float16":
            dtype = self.mixed_precision_dtype
            yield "loss_scale", f"is for `mixed_precision_dtype: float16`, which is {dtype}"
        if self.enable_xla and self.run_eagerly:
            yield "enable_xla", "cannot be combined with `run_eagerly`"
        if self.enable_xla and self.distribution_strategy == "multi_worker_mirrored":
            yield "enable_xla", "works on one device only, not with `multi_worker_mirrored`"

    @property
    def scales_dynamically(self) -> bool:
        """Whether the loss scale adapts itself."""
        return self.mixed_precision_dtype == "float16" and not isinstance(self.loss_scale, float)


class ExperimentConfig(_GardenSection):
    """Describes a whole run: what is trained, for how long, and on which devices.

    >>> config = ExperimentConfig({"trainer": {"train_steps": 100}, "runtime": {"seed": 7}})
    >>> config.trainer.train_steps, config.runtime.seed
    (100, 7)

    Attributes:
        experiment: The name under which the experiment is registered, so that a file of settings
            says of what they are; None for an experiment that is not.
        task: The model, its data and its loss; an instance of the task's own config class.
        trainer: How long, how often, and with which optimizer.
        runtime: The machine, the precision and the seed.
    """

    experiment: str | None = None
    task: Section[TaskConfig] = field(default_factory=TaskConfig)
    trainer: Section[TrainerConfig] = field(default_factory=TrainerConfig)
    runtime: Section[RuntimeConfig] = field(default_factory=RuntimeConfig)

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Returns the errors and warnings, those between sections included."""
        self.told_trainer()
        problems, doubts = super().problems()
        section = self.trainer.optimizer_config.optimizer.get()
        if section is None:
            return problems, doubts
        if self.runtime.scales_dynamically and section.on_nonfinite not in (None, "skip"):
            message = "must be `skip` with a dynamic loss scale, which tries what overflows"
            problems.append(section._problem("conflict", "on_nonfinite", message))
        if self.runtime.mixed_precision_dtype == "float16" and section.loss_scale_factor:
            message = "with float16 the loss is scaled by `runtime.loss_scale`: set that one"
            problems.append(section._problem("conflict", "loss_scale_factor", message))
        return problems, doubts

    def told_trainer(self) -> TrainerConfig:
        """Returns `trainer`, that knows the batch of the task."""
        self.trainer.__dict__["_batch"] = self.task.train_data.global_batch_size or None
        return self.trainer

    def sized_optimizer_config(self) -> OptimizationConfig:
        """Returns `trainer.optimizer_config` with what depends on the rest of the experiment.

        Steps are numbers; the batch of `lr_scaling`, where it is not set, is that of an update:
        `task.train_data.global_batch_size` times the accumulated gradients. With float16, whose
        loss is scaled, updates that are not finite are skipped where nothing else is said.

        Raises:
            ConfigError: If a number of steps needs what the trainer's config does not say.
        """
        sized, problems = self.told_trainer().sized_optimizer_config()
        if problems:
            raise ConfigError(problems)
        section, scaling = sized.optimizer.get(), sized.lr_scaling
        batch = self.task.train_data.global_batch_size
        is_one = section and sized.accumulation is None  # else `lr_scaling` must say it
        if scaling is not None and scaling.global_batch_size is None and is_one and batch:
            scaling.global_batch_size = batch * section.gradient_accumulation_steps
        if self.runtime.mixed_precision_dtype == "float16" and section:
            section.on_nonfinite = section.on_nonfinite or "skip"
        return sized

    def problems_in_mode(self, mode: str) -> list[Problem]:
        """Returns what a run in `mode`, one of `MODES`, lacks or cannot do."""
        train, validation = self.task.train_data, self.task.validation_data
        needed: list[tuple[Config, str]] = []
        if mode.startswith("train"):
            needed += [(self.trainer, "train_steps"), (train, "global_batch_size")]
        if "eval" in mode:
            needed.append((validation, "global_batch_size"))
        message = f"must be > 0 in the mode {mode!r}, got 0"
        problems = [c._problem("missing", n, message) for c, n in needed if not getattr(c, n)]
        if mode.startswith("train"):
            if not train.is_training:
                message = "must be true: training data go on, epoch after epoch"
                problems.append(train._problem("conflict", "is_training", message))
            problems += self._following_problems(mode)
        if "eval" in mode and validation.is_training and self.trainer.validation_steps == -1:
            message = "must be false, or `trainer.validation_steps` set: the data have no end"
            problems.append(validation._problem("conflict", "is_training", message))
        return problems

    def _following_problems(self, mode: str) -> list[Problem]:
        """Returns what keeps a rate, or a stop, that follows the validation from ever acting."""
        trainer, rate = self.trainer, self.trainer.optimizer_config.learning_rate
        followers: list[tuple[Config, str, str]] = []
        if isinstance(rate.get(), MetricLrConfig):
            followers.append((rate, "type", repr(rate.type)))
        if trainer.early_stopping is not None:
            followers.append((trainer, "early_stopping", "it"))
        problems = []
        for section, name, word in followers:
            if mode == "train":
                message = f"{word} follows the validation, which the mode 'train' leaves out"
                problems.append(section._problem("conflict", name, message))
            elif trainer.validation_interval >= trainer.train_steps:
                who = word if name == "type" else f"`{name}`"
                message = f"must be < `train_steps` {trainer.train_steps}: {who} follows it"
                problems.append(trainer._problem("conflict", "validation_interval", message))
        return problems
