"""One run of an experiment in one mode."""

import os
import time

from rich.console import Console

from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import MODES, ExperimentConfig
from optimization.training.errors import TrainingError
from optimization.training.progress import say
from optimization.training.report import final_report
from optimization.training.trainer import Trainer

PARAMS_FILE = "params.yaml"


def run_experiment(
    config: ExperimentConfig,
    mode: str,
    model_dir: str | os.PathLike,
    *,
    console: Console | None = None,
) -> dict[str, float]:
    """Trains, evaluates or both, and writes `params.yaml`, checkpoints and summaries.

    `train` and `train_and_eval` go on from the latest checkpoint in `model_dir`, if there is one,
    as if the run had never stopped. `eval` evaluates the latest checkpoint, `continuous_eval` each
    new one until that of `train_steps`, or until none comes in time.

    Args:
        config: The experiment, complete.
        mode: `train`, `eval`, `train_and_eval` or `continuous_eval`.
        model_dir: The directory of the run; made if need be.
        console: Where to write progress; None for standard output.

    Returns:
        The last values of the loss and the metrics; those of evaluations start with "validation ".

    Raises:
        ConfigError: If the config is wrong, or lacks what the mode needs.
        TrainingError: If the run cannot be done, or its loss becomes NaN.
        ValueError: If there is no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"Argument `mode` must be one of {', '.join(MODES)}, received: {mode!r}")
    problems = config.problems_in_mode(mode)
    if problems:
        raise ConfigError(problems)
    console = console or Console()
    model_dir = os.fspath(model_dir)
    if mode.startswith("train"):
        make_directory(model_dir)
    started = time.perf_counter()
    trainer = Trainer(config, model_dir, console=console)
    if mode == "eval":
        results = trainer.evaluate_checkpoint()
    elif mode == "continuous_eval":
        results = trainer.evaluate_continuously()
    else:
        results = trainer.train(
            evaluate=mode == "train_and_eval",
            on_start=lambda: _write_params(config, model_dir) if trainer.chief else None,
        )
    if "train" not in mode:
        results = {f"validation {name}": value for name, value in results.items()}
    if trainer.chief:
        say(console, final_report(trainer, results, time.perf_counter() - started))
    return results


def make_directory(path: str) -> None:
    """Makes the directory of a run.

    Raises:
        TrainingError: If it cannot be made.
    """
    if "://" in path:
        raise TrainingError(f"--model_dir must be a directory of this machine, got {path!r}")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"--model_dir {path!r} cannot be made: {error.strerror}") from None


def _write_params(config: ExperimentConfig, directory: str) -> None:
    try:
        config.to_yaml(os.path.join(directory, PARAMS_FILE))
    except OSError as error:
        raise TrainingError(f"--model_dir {directory!r} cannot be written to: {error}") from None
