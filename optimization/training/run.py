"""One run of an experiment in one mode."""

import contextlib
import json
import os
import time
import typing
from collections.abc import Callable
from typing import Any

from rich.console import Console

from optimization.configs.errors import ConfigError, did_you_mean
from optimization.configs.experiment_config import MODES, ExperimentConfig
from optimization.training import checkpoint_files, history, resuming
from optimization.training.errors import CheckpointError, TrainingError, first_line
from optimization.training.progress import labeled, say
from optimization.training.registries import get_task_class
from optimization.training.report import best_directory, describe_run, final_report, rows
from optimization.training.results import seconds_of, update_results, versions
from optimization.training.signals import Stopped, current, stopping
from optimization.training.task import Task

OnEvaluation = Callable[[int, dict[str, float]], None] | None

if typing.TYPE_CHECKING:
    from optimization.training.trainer import Trainer


def run_experiment(
    config: ExperimentConfig,
    mode: str,
    model_dir: str | os.PathLike,
    *,
    checkpoint: str | None = None,
    console: Console | None = None,
    on_evaluation: OnEvaluation = None,
) -> dict[str, float]:
    """Trains, evaluates or both, and writes `params.yaml`, checkpoints and summaries.

    `train` and `train_and_eval` go on from the latest checkpoint in `model_dir`, if there is one,
    as if the run had never stopped. `eval` evaluates one checkpoint, `continuous_eval` each new one
    until that of `train_steps`, or until none comes in time. `export` writes the model of one
    checkpoint to `export` in `model_dir`: `model.keras`, and `saved_model` where TensorFlow can.

    >>> results = run_experiment(get_experiment("tiny"), "train", model_dir, console=quiet)
    >>> os.path.exists(os.path.join(model_dir, "params.yaml"))
    True

    Args:
        config: The experiment, complete.
        mode: `train`, `eval`, `train_and_eval`, `continuous_eval` or `export`.
        model_dir: The directory of the run; made if need be.
        checkpoint: What `eval` evaluates, or `export` exports: `latest`, `best`, or a checkpoint by
            its path; None for `latest`. Summaries are written of the latest alone.
        console: Where to write progress; None for standard output.
        on_evaluation: Called after each evaluation of `train_and_eval` with the step and the
            values; an error that it raises ends the run.

    Returns:
        The last values of the loss and the metrics; those of evaluations start with "validation ".

    Raises:
        ConfigError: If the config is wrong, or lacks what the mode needs.
        TrainingError: If the run cannot be done, or its loss becomes NaN.
        KeyboardInterrupt: After SIGINT, when all is saved; the same call goes on.
        SystemExit: After SIGTERM and SIGHUP, with 128 and the number of the signal.
        ValueError: If there is no such mode.
    """
    model_dir = os.fspath(model_dir)
    path = check_run(config, mode, model_dir, checkpoint)
    with stopping():
        return _run(config, mode, model_dir, path, checkpoint, console, on_evaluation)


def _run(
    config: ExperimentConfig,
    mode: str,
    model_dir: str,
    path: str | None,
    checkpoint: str | None,
    console: Console | None,
    on_evaluation: OnEvaluation,
) -> dict[str, float]:
    started = time.perf_counter()
    # And with these TensorFlow.
    from optimization.training.exporting import export_checkpoint
    from optimization.training.trainer import Trainer

    if mode == "export":  # One copy of the weights is what there is to write.
        config = config.replace(runtime={"distribution_strategy": "one_device"})
    trainer = Trainer(config, model_dir, console=console)
    if mode.startswith("train"):
        results = _train(trainer, mode, on_evaluation)
    else:
        say(trainer.console, describe_run(trainer))
        if mode == "export":
            with current().section(raises=False):  # what is begun is written as a whole
                say(trainer.console, rows(export_checkpoint(trainer, typing.cast(str, path))))
            return {}
        if mode == "eval":
            values = trainer.evaluate_checkpoint(path, record=checkpoint in (None, "latest"))
        else:
            values = trainer.evaluate_continuously()
        results = labeled(values)
    say(trainer.console, final_report(trainer, results, time.perf_counter() - started))
    return results


def _train(trainer: "Trainer", mode: str, on_evaluation: OnEvaluation) -> dict[str, float]:
    """Trains, and keeps `results.json`: what is trained, how it ended, and what it came to."""
    config, model_dir, started = trainer.config, trainer.model_dir, time.perf_counter()
    before = 0.0

    def keep(**values: Any) -> None:
        if trainer.chief:
            seconds = before + time.perf_counter() - started
            update_results(model_dir, {**values, "steps": trainer.step, "seconds": seconds})

    def start() -> None:
        nonlocal before
        if trainer.chief:
            try:
                history.keep(model_dir, config, trainer.step)
                before = (trainer.step and seconds_of(model_dir)) or 0.0
                keep(
                    status="running",
                    error=None,
                    experiment=config.experiment,
                    mode=mode,
                    train_steps=config.trainer.train_steps,
                    settings=history.PARAMS_FILE,
                    versions=versions(),
                )
            except OSError as error:
                message = f"--model_dir {model_dir!r} cannot be written to: {error}"
                raise TrainingError(message) from None
        say(trainer.console, describe_run(trainer))
        begun.append(True)

    def stopped(error: BaseException) -> None:
        if begun:
            interrupted = isinstance(error, KeyboardInterrupt | Stopped)
            text = str(error) if isinstance(error, Stopped) else first_line(error)
            keep(status="interrupted" if interrupted else "failed", error=text)

    begun: list[bool] = []  # not where nothing is left to train
    stop = current()
    stop.leaving = lambda: stopped(Stopped(stop.signum or 0))
    try:
        results = trainer.train(mode == "train_and_eval", start, on_evaluation)
    except (Exception, KeyboardInterrupt, Stopped) as error:
        with contextlib.suppress(OSError):  # of a disk that is full, as the error tells
            stopped(error)
        raise
    finally:
        stop.leaving = None
    if begun:
        early, best = trainer.stopped_early, trainer.best_evaluation()
        keep(status="finished", stopped_early=early, final=results, best=best)
    return results


def check_run(
    config: ExperimentConfig,
    mode: str,
    model_dir: str,
    checkpoint: str | None = None,
    writes: bool = True,
) -> str | None:
    """Returns the checkpoint of a run; raises what can be told of its mistakes without TensorFlow.

    That is the checkpoint to evaluate, or to go on from; None if there is none. A training makes
    its directory if need be, unless it `writes` nothing; it may have none ("") then.
    """
    if mode not in MODES:
        raise ValueError(f"Argument `mode` must be one of {', '.join(MODES)}, received: {mode!r}")
    problems = config.problems_in_mode(mode)
    if problems:
        raise ConfigError(problems)
    if checkpoint is not None and mode not in ("eval", "export"):
        raise TrainingError(f"--checkpoint is for --mode=eval and export, the mode is {mode!r}")
    task_class = get_task_class(config.task)
    check_directory(model_dir)
    if mode == "continuous_eval":
        return None
    if mode in ("eval", "export"):
        return _chosen_checkpoint(config, model_dir, checkpoint, mode)
    _check_workers(config)
    damaged = config.trainer.on_damaged
    found = checkpoint_files.latest_checkpoint(model_dir, damaged) if model_dir else None
    # A run that has ended writes nothing more but to a directory that lets it.
    ended = found and (checkpoint_files.step_of(found) or 0) >= config.trainer.train_steps
    if writes and not ended:
        make_directory(model_dir)
    start = config.task.init_checkpoint
    if found is not None:
        resuming.before_tensorflow(config, model_dir, found)
    elif start and "://" not in start and task_class.initialize is Task.initialize:
        try:
            checkpoint_files.find_checkpoint(start)
        except CheckpointError as error:
            raise CheckpointError(f"task.init_checkpoint: {error}") from None
    return found


def _check_workers(config: ExperimentConfig) -> None:
    """Raises a `TrainingError` if TF_CONFIG names workers that would train each on its own."""
    strategy = config.runtime.distribution_strategy
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}")["cluster"]
        workers = sum(len(cluster.get(job, ())) for job in ("chief", "worker"))
    except (ValueError, LookupError, TypeError, AttributeError):  # TensorFlow tells it if need be.
        return
    if workers > 1 and strategy != "multi_worker_mirrored":
        raise TrainingError(
            f"TF_CONFIG names {workers} workers, which with runtime.distribution_strategy="
            f"{strategy} would each train alone, in one directory; set "
            "runtime.distribution_strategy=multi_worker_mirrored"
        )


def _chosen_checkpoint(
    config: ExperimentConfig, model_dir: str, checkpoint: str | None, mode: str
) -> str:
    """Returns the path of the checkpoint that is to be evaluated, or exported."""
    if checkpoint in (None, "latest"):
        found = checkpoint_files.latest_checkpoint(model_dir, config.trainer.on_damaged)
        if found is None:
            missing = "" if os.path.isdir(model_dir) else ": there is no such directory"
            verb = "export" if mode == "export" else "evaluate"
            raise CheckpointError(f"there is no checkpoint in {model_dir!r} to {verb}{missing}")
        return found
    if checkpoint == "best":
        return _best_checkpoint(config, model_dir)
    if not checkpoint:
        raise TrainingError("--checkpoint must be best, latest or a path, got ''")
    whole = checkpoint_files.whole_checkpoints(model_dir)
    if checkpoint in whole:
        return os.path.join(model_dir, checkpoint)
    try:
        return checkpoint_files.find_checkpoint(checkpoint)
    except CheckpointError as error:
        held = ", ".join(reversed(whole)) or "no checkpoint"
        there = did_you_mean(checkpoint, ["best", "latest"]) or f"; {model_dir!r} holds {held}"
        raise CheckpointError(f"--checkpoint: {error}{there}") from None


def _best_checkpoint(config: ExperimentConfig, model_dir: str) -> str:
    directory = best_directory(config, model_dir)
    if directory is None:
        raise CheckpointError(
            "--checkpoint=best: the run keeps no best weights, "
            "trainer.best_checkpoint_export_subdir is not set"
        )
    found = checkpoint_files.latest_checkpoint(directory)
    if found is None:
        raise CheckpointError(
            f"--checkpoint=best: there are no best weights in {directory!r}; evaluations keep "
            "them, as those of --mode=train_and_eval"
        )
    return found


def check_directory(path: str) -> None:
    """Raises a `TrainingError` if `path`, there or not, cannot be the directory of a run."""
    if "://" in path:
        raise TrainingError(f"--model_dir must be a directory of this machine, got {path!r}")
    if os.path.exists(path) and not os.path.isdir(path):
        raise TrainingError(f"--model_dir {path!r} is a file, not a directory")


def make_directory(path: str) -> None:
    """Makes the directory of a run, in which it can write."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"--model_dir {path!r} cannot be made: {error.strerror}") from None
    params = os.path.join(path, history.PARAMS_FILE)
    reason = ""
    if not os.access(path, os.W_OK | os.X_OK):
        reason = "permission denied"
    elif os.path.exists(params) and not (os.path.isfile(params) and os.access(params, os.W_OK)):
        reason = f"{history.PARAMS_FILE} there is not a file that can be written"
    if reason:
        raise TrainingError(f"--model_dir {path!r} cannot be written to: {reason}")
