"""What chooses the trials of a sweep, runs them and stops those that fall behind."""

import contextlib
import functools
import multiprocessing.spawn
import os
import pickle
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optimization import extras
from optimization.configs.errors import did_you_mean
from optimization.configs.sweep_space import Assignment
from optimization.training.errors import TrainingError
from optimization.training.imports import quiet_libraries, told
from optimization.training.sweep import Sweep

Tell = Callable[[dict[str, Any]], None]
"""What is called with the record of each trial that is over."""


def run_optuna(sweep: Sweep, tell: Tell) -> None:
    """Runs one trial after another; each is chosen by TPE from what those before came to.

    Trials that are over are told to Optuna as if they ran again, so that a sweep that was stopped
    goes on as one that was not: the sampler has no state but the seed and the number of the trial.
    """
    optuna = extras.require("optuna")
    with quiet_libraries():
        extras.require("tensorflow")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, config = sweep.space, sweep.space.config
    pruner = optuna.pruners.NopPruner()
    if config.prune:
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=sweep.grace_steps, reduction_factor=config.reduction_factor
        )
    direction = "maximize" if sweep.higher else "minimize"
    study = optuna.create_study(direction=direction, pruner=pruner)
    states = {"pruned": optuna.trial.TrialState.PRUNED, "failed": optuna.trial.TrialState.FAIL}
    for number in range(space.count):
        record = sweep.record(number)
        fixed = space.numbered(record["params"]) if record else space.point(number)
        seed = np.random.SeedSequence([config.seed, number]).generate_state(1)[0]
        study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        study.enqueue_trial({_name(n): _coded(sweep, n, value) for n, value in fixed.items()})
        trial = study.ask()
        assignment = space.assign(functools.partial(_suggested, sweep, trial))

        def judge(step: int, value: float, trial: Any = trial) -> bool:
            trial.report(value, step)
            return trial.should_prune()

        if record and sweep.is_over(number):
            for earlier in record["evaluations"]:
                if earlier["step"] < record["train_steps"]:
                    judge(earlier["step"], earlier[sweep.metric])
        else:
            record = sweep.run(number, assignment, judge)
            tell(record)
        state = states.get(record["status"])
        study.tell(trial, None if state else record["value"], state)


def _name(number: int) -> str:
    return str(number)  # of a parameter: of two, `when` may say which has a path


def _coded(sweep: Sweep, number: int, value: Any) -> Any:
    """Returns a value as Optuna has it: of a list, its number."""
    values = sweep.space.parameters[number].values
    if not values:
        return value
    return next(n for n, v in enumerate(values) if v == value and type(v) is type(value))


def _suggested(sweep: Sweep, trial: Any, number: int) -> Any:
    name, parameter = _name(number), sweep.space.parameters[number]
    if parameter.values:
        return parameter.values[trial.suggest_categorical(name, range(len(parameter.values)))]
    if parameter.int:
        return trial.suggest_int(name, *parameter.int, step=parameter.step or 1, log=parameter.log)
    if parameter.log_uniform:
        return trial.suggest_float(name, *parameter.log_uniform, log=True)
    return trial.suggest_float(name, *(parameter.uniform or ()))


def run_ray(sweep: Sweep, tell: Tell) -> None:
    """Runs trials that are drawn at random on Ray Tune, as many at once as there is room for.

    Each is drawn from the seed and its number. The cluster is that which `RAY_ADDRESS` names, or
    else this machine.
    """
    ray = extras.require("ray")
    tune = extras.require("ray.tune")
    config = sweep.space.config
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose tables are shown whatever one asks for
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        except Exception as error:  # of many kinds
            raise TrainingError(f"Ray can't be started or reached: {told(error)}") from error
    resources = {**config.resources} or {"cpu": 1}
    watcher = _watcher(sweep, tell)
    scheduler = None
    if config.prune:
        scheduler = tune.schedulers.ASHAScheduler(
            time_attr="step",
            grace_period=sweep.grace_steps,
            reduction_factor=config.reduction_factor,
            max_t=2**31,  # none is stopped at its end
        )
    todo = [number for number in range(sweep.space.count) if not sweep.is_over(number)]
    try:
        if started and not os.environ.get("RAY_ADDRESS"):  # a cluster may grow
            check_room(resources, ray.cluster_resources())
        tune.Tuner(
            tune.with_resources(_trainable(sweep), resources),
            param_space={"number": tune.grid_search(todo)},
            tune_config=tune.TuneConfig(
                metric="value",
                mode="max" if sweep.higher else "min",
                scheduler=scheduler,
                max_concurrent_trials=config.concurrent_trials,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=os.path.join(sweep.model_dir, "ray"),
                callbacks=[watcher],
                stop=watcher.stopper,
                verbose=0,
            ),
        ).fit()
    finally:
        if started:
            ray.shutdown()
    if watcher.fatal:
        raise TrainingError(watcher.fatal)


def check_room(resources: Mapping[str, float], there: Mapping[str, float]) -> None:
    """Raises a `TrainingError` for what a trial takes and a machine has not: Ray would wait for it.

    Args:
        resources: What a trial takes; `cpu` and `gpu` are Ray's "CPU" and "GPU".
        there: What the machine has, as Ray says it.
    """
    for name, wanted in resources.items():
        own = there.get({"cpu": "CPU", "gpu": "GPU"}.get(name, name), 0)
        if wanted > own:
            known = ("cpu", "gpu")
            near = "" if name in known else did_you_mean(name, known)
            raise TrainingError(
                f"resources.{name}: a trial takes {wanted:g}, and this machine has {own:g}{near}"
            )


def drawn(sweep: Sweep, number: int) -> Assignment:
    """Returns the settings of a trial, drawn from the seed and its number."""
    space = sweep.space
    source = random.Random(f"{space.config.seed}/{number}").random
    point = space.point(number)
    return space.assign(lambda n: point[n] if n in point else space.parameters[n].draw(source))


def _trainable(sweep: Sweep) -> Callable[[dict[str, Any]], None]:
    """Returns what a worker runs, which holds all that it needs."""
    # As multiprocessing prepares a process that it starts: the paths of modules and the main one,
    # which registers experiments, tasks and types.
    surroundings = multiprocessing.spawn.get_preparation_data("sweep")
    wanted = ("sys_path", "dir", "orig_dir", "init_main_from_name", "init_main_from_path")
    surroundings = {name: surroundings[name] for name in wanted if name in surroundings}
    pickled = pickle.dumps(sweep)

    def run(chosen: dict[str, Any]) -> None:
        from multiprocessing import spawn

        spawn.prepare(surroundings)
        from optimization.training import sweep_engines

        sweep_engines.run_in_worker(pickled, chosen["number"])

    return run


def run_in_worker(pickled: bytes, number: int) -> None:
    """Runs a trial where Ray has put it; what its evaluations come to is told to Ray."""
    from ray import tune

    sweep: Sweep = pickle.loads(pickled)
    record = sweep.record(number)
    known = sweep.space.numbered(record["params"]) if record else drawn(sweep, number)

    def judge(step: int, value: float) -> bool:
        tune.report({"step": step, "value": value})  # does not return if Ray stops the trial
        return False

    with contextlib.suppress(TrainingError):  # the record has it
        sweep.run(number, known, judge)


def _watcher(sweep: Sweep, tell: Tell) -> Any:
    """Returns the callback of Ray Tune by which trials that are over are seen."""
    from ray import tune

    class Watcher(tune.Callback):
        def __init__(self, sweep: Sweep, tell: Tell):
            self.sweep, self.tell = sweep, tell
            self.fatal = ""  # an error that all trials would come to

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Ray keeps a copy, to go on from, which nobody asks for

        def stopper(self, trial_id: str, result: dict[str, Any]) -> bool:
            return bool(self.fatal)

        def _over(self, trial: Any, status: str, error: str | None = None) -> None:
            record = self.sweep.record(trial.config["number"])
            if record is None:
                self.fatal = self.fatal or f"a trial could not begin: {error}"
                return
            if record["status"] == "running":  # Ray has stopped it, or it died
                record.update(status=status, error=error)
                self.sweep.keep(record)
            if record.get("fatal"):
                self.fatal = record["error"]
            self.tell(record)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self._over(trial, "pruned")

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self._over(trial, "failed", _reason(trial))

    return Watcher(sweep, tell)


def _reason(trial: Any) -> str:
    """Returns why a worker has ended, in a line, from what Ray has written."""
    with open(trial.error_file, encoding="utf-8") as file:
        _, *lines = file.read().strip().splitlines()
    # What a worker raised ends its traceback; of one that is gone, Ray's own words begin with it.
    return lines[-1] if lines[0].startswith("ray::") else lines[0]


ENGINES = {"optuna": run_optuna, "ray": run_ray}
