"""A sweep: trials of an experiment with other settings, each a run in a directory of its own."""

import contextlib
import csv
import math
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from optimization.configs import yaml_file
from optimization.configs.errors import ConfigError, ConfigWarning, nearest_or_all
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.layers import layered, settle
from optimization.configs.overrides import parse_override
from optimization.configs.sweep_space import MODE, Assignment, Space, load_space
from optimization.training import changes
from optimization.training.errors import TrainingError
from optimization.training.imports import told
from optimization.training.lock import locked
from optimization.training.progress import say
from optimization.training.results import (
    RESULTS_FILE,
    read_results,
    update_results,
    write_json,
)
from optimization.training.run import check_directory, make_directory, run_experiment
from optimization.training.signals import stopping

SUMMARY_FILE, TABLE_FILE = "sweep.json", "sweep.csv"
SWEEP_FILE, LOG_FILE = "sweep.yaml", "log.txt"
OVER = ("finished", "pruned", "failed")

# What a sweep that goes on may have otherwise.
_FREE = {"trials", "engine", "concurrent_trials", "resources"}


class _Pruned(Exception):  # noqa: N818  no error: the trial has fallen behind
    pass


class Sweep:
    """The directory of a sweep, and how one trial is run in it.

    Args:
        space: What is tried.
        model_dir: The directory of the sweep; that of a trial is `trial_0000` in it, and so on.
    """

    def __init__(self, space: Space, model_dir: str):
        self.space = space
        self.model_dir = os.path.abspath(model_dir)
        trainer, config = space.base.trainer, space.config
        self.metric = config.decides(trainer)
        self.higher = config.direction(trainer) == "higher"
        self.grace_steps = config.grace_steps or trainer.validation_interval

    def directory(self, number: int) -> str:
        """Returns the directory of a trial."""
        return os.path.join(self.model_dir, f"trial_{number:04d}")

    def record(self, number: int) -> dict[str, Any] | None:
        """Returns what is known of a trial, its `results.json`; None if it has not begun."""
        try:
            return read_results(self.directory(number))
        except ValueError as error:
            path = os.path.join(self.directory(number), RESULTS_FILE)
            raise TrainingError(f"{path} is not JSON: {error}; remove the directory") from None

    def is_over(self, number: int) -> bool:
        """Whether a trial is not to be run again."""
        record = self.record(number)
        return record is not None and record["status"] in OVER

    def keep(self, record: dict[str, Any]) -> None:
        """Writes the record of a trial, over what its run itself has written there."""
        update_results(self.directory(record["trial"]), record)

    def run(
        self, number: int, assignment: Assignment, judge: Callable[[int, float], bool]
    ) -> dict[str, Any]:
        """Runs a trial, from where it was stopped if it was; returns its record.

        Args:
            number: The number of the trial.
            assignment: Its settings.
            judge: Called with the step and the metric of each evaluation but that at the end, those
                from before it was stopped too; says whether the trial has fallen behind.

        Raises:
            TrainingError: If the validation does not report the metric.
        """
        space, directory = self.space, self.directory(number)
        make_directory(directory)
        before = self.record(number) or {"evaluations": [], "seconds": 0.0}
        override = space.override(assignment)
        config, problems = layered(space.base, [parse_override(override)])
        steps = config.trainer.train_steps
        record: dict[str, Any] = {
            "trial": number,
            "status": "running",
            "params": space.named(assignment),
            "override": override,
            "metric": self.metric,
            "value": None,
            "train_steps": steps,
            "evaluations": [],
            "seconds": 0.0,
            "error": None,
        }
        started = time.perf_counter()

        def keep(**news: Any) -> dict[str, Any]:
            record.update(news, seconds=before["seconds"] + time.perf_counter() - started)
            self.keep(record)
            return record

        def evaluated(step: int, values: dict[str, float]) -> None:
            if self.metric not in values:
                message = f"metric: the validation reports no {self.metric!r}"
                raise _MetricError(message + nearest_or_all(self.metric, values))
            if not record["evaluations"]:  # those from before the run was stopped
                record["evaluations"] = [e for e in before["evaluations"] if e["step"] < step]
                for earlier in record["evaluations"]:
                    judge(earlier["step"], earlier[self.metric])
            value = values[self.metric]
            if not math.isfinite(value):
                raise TrainingError(f"{self.metric} is {value} at step {step}")
            numbers = {k: v if math.isfinite(v) else None for k, v in values.items()}
            record["evaluations"].append({"step": step, **numbers})
            keep(value=value)
            if step < steps and judge(step, value):
                raise _Pruned

        keep()
        try:
            with _logged(os.path.join(directory, LOG_FILE)) as console:
                # Values that are right each may be wrong together.
                config = settle(config, problems)
                run_experiment(config, MODE, directory, console=console, on_evaluation=evaluated)
        except _Pruned:
            return keep(status="pruned")
        except _MetricError as error:
            keep(status="failed", error=str(error), fatal=True)
            raise
        except Exception as error:
            plain = isinstance(error, TrainingError | ConfigError)
            trace = {} if plain else {"traceback": traceback.format_exc()}
            return keep(status="failed", error=str(error) if plain else told(error), **trace)
        return keep(status="finished")

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields the records of all trials that have begun."""
        for number in range(self.space.count):
            if record := self.record(number):
                yield record

    def best(self) -> dict[str, Any] | None:
        """Returns the record of the best trial that came to its end; None as long as none has."""
        ended = [record for record in self.records() if record["status"] == "finished"]
        choose = max if self.higher else min
        return choose(ended, key=lambda record: record["value"]) if ended else None

    def summarize(self) -> dict[str, Any]:
        """Writes `sweep.json` and `sweep.csv`; returns what the first holds."""
        records, best = [*self.records()], self.best()
        kept = ("trial", "status", "value", "params", "override", "seconds", "error")
        summary = {
            "metric": self.metric,
            "metric_comp": "higher" if self.higher else "lower",
            "trials_wanted": self.space.count,
            "best": best
            and {
                **{name: best[name] for name in kept[:-1]},
                "model_dir": self.directory(best["trial"]),
            },
            "trials": [{name: record[name] for name in kept} for record in records],
        }
        write_json(os.path.join(self.model_dir, SUMMARY_FILE), summary)
        paths = list(dict.fromkeys(parameter.path for parameter in self.space.parameters))
        with open(os.path.join(self.model_dir, TABLE_FILE), "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["trial", "status", "step", self.metric, "seconds", *paths])
            for record in records:
                step = record["evaluations"][-1]["step"] if record["evaluations"] else None
                row = [record["trial"], record["status"], step, record["value"], record["seconds"]]
                table.writerow([*row, *(record["params"].get(path) for path in paths)])
        return summary

    def line(self, record: dict[str, Any]) -> str:
        """Returns what is told of a trial that is over."""
        value = "" if record["value"] is None else f"  {self.metric} {record['value']:.4g}"
        text = f"trial_{record['trial']:04d} of {self.space.count}  {record['status']}{value}"
        if record["status"] == "pruned":
            text += f" at step {record['evaluations'][-1]['step']}"
        if record["error"]:
            text += f"  {record['error']}"
        return f"{text}  {record['override']}"


class _MetricError(TrainingError):
    """What every trial would come to."""


def run_sweep(
    config: ExperimentConfig,
    sweep_file: str | os.PathLike,
    model_dir: str | os.PathLike,
    *,
    console: Console | None = None,
) -> dict[str, Any]:
    """Runs the trials of a sweep that are not over, and writes the summary after each.

    All that is wrong with the file is told before anything is trained:

    >>> sweep_file = os.path.join(model_dir, "sweep.yaml")
    >>> with open(sweep_file, "w") as file:
    ...     _ = file.write("parameters: [{path: trainer.train_step, grid: [4, 8]}]")
    >>> run_sweep(get_experiment("tiny"), sweep_file, model_dir)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    optimization.configs.errors.ConfigError: ...yaml:1: trainer.train_step: unknown key; did...

    Args:
        config: The experiment that is varied, complete.
        sweep_file: The YAML file of a `SweepConfig`.
        model_dir: The directory of the sweep; made if need be.
        console: Where to write a line for each trial; None for standard output.

    Returns:
        What `sweep.json` holds; `best` has the override of the best trial.

    Raises:
        ConfigError: Everything that is wrong with the file, before anything is trained.
        TrainingError: If the directory is of another sweep, no trial comes to its end, or the
            validation does not report the metric.
    """
    space = load_space(sweep_file, config)
    sweep = Sweep(space, os.fspath(model_dir))
    console = console or Console()
    check_directory(sweep.model_dir)
    make_directory(sweep.model_dir)
    with stopping(), locked(sweep.model_dir, "sweeps", lambda text: say(console, text)):
        return _run(sweep, console)


def _run(sweep: Sweep, console: Console) -> dict[str, Any]:
    from optimization.training import sweep_engines

    space = sweep.space
    _begin(sweep)
    over = sum(map(sweep.is_over, range(space.count)))
    if over:
        say(console, f"{over} of {space.count} trials are over already")

    def tell(record: dict[str, Any]) -> None:
        say(console, sweep.line(record))
        sweep.summarize()

    if over < space.count:
        sweep_engines.ENGINES[space.config.engine](sweep, tell)
    summary = sweep.summarize()
    missing = [n for n in range(space.count) if not sweep.is_over(n)]
    if missing:
        raise TrainingError(f"{len(missing)} trials are not over; the same command goes on")
    best = summary["best"]
    if best is None:
        errors = [record["error"] for record in summary["trials"] if record["error"]]
        raise TrainingError(f"no trial came to its end; the first error: {errors[0]}")
    say(console, f"best  {sweep.metric} {best['value']:.6g}, {best['model_dir']}")
    say(console, f"  --params_override='{best['override']}'")
    return summary


def _begin(sweep: Sweep) -> None:
    """Writes what the sweep is to its directory, or checks that it is the one that began there."""
    params, settings = (
        os.path.join(sweep.model_dir, name) for name in (changes.PARAMS_FILE, SWEEP_FILE)
    )
    if os.path.exists(params) and not os.path.exists(settings):
        raise TrainingError(f"--model_dir {sweep.model_dir!r} is that of a run; take another one")
    base, config = sweep.space.base, sweep.space.config
    if os.path.exists(settings):
        found = [str(change) for change in changes.since_params(sweep.model_dir, base)]
        was, _ = yaml_file.read_file(settings)
        now, _ = yaml_file.read(config.to_yaml())
        found += [f"{k}: is another one" for k in now if k not in _FREE and now[k] != was.get(k)]
        if found:
            lines = "\n".join(f"  {line}" for line in found)
            raise TrainingError(
                f"the sweep in {sweep.model_dir!r} began with other settings:\n{lines}\n"
                "Set this as it was to go on, or take another --model_dir"
            )
    base.to_yaml(params)
    config.to_yaml(settings)


@contextlib.contextmanager
def _logged(path: str) -> Iterator[Console]:
    """A console that writes to a file, where warnings about the config go too."""
    with open(path, "a", encoding="utf-8") as file, warnings.catch_warnings():
        warnings.simplefilter("always", ConfigWarning)
        show = warnings.showwarning

        def write(message: Any, category: type[Warning], *place: Any, **kwargs: Any) -> None:
            if issubclass(category, ConfigWarning):
                file.write(f"warning: {message}\n")
            else:
                show(message, category, *place, **kwargs)

        warnings.showwarning = write
        yield Console(file=file, width=100)
